"""One finding of the doctor."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any, Literal

Level = Literal["ok", "advice", "problem"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it.

    Attributes
    ----------
    name
        What was looked at.
    status
        "ok", "advice" (works, could be better), "problem" (something will not work).
    found
        One line of fact.
    todo
        What to do, a sentence or a command; empty if nothing.
    details
        The facts behind it, JSON-able.
    """

    name: str
    status: Level
    found: str
    todo: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The finding as a plain dict."""
        return dataclasses.asdict(self)


def pip_install(*arguments: str) -> str:
    """The command that installs into this very Python."""
    quoted = [f'"{item}"' if any(sign in item for sign in ' <>[]"') else item for item in arguments]
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return " ".join([python, "-m", "pip", "install", *quoted])


def no_window() -> int:
    """Creation flags that keep Windows from opening a console for a process."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW
    return 0


class ProbeError(Exception):
    """A probe in its own process did not answer; the message is its last line."""


def probe(code: str, timeout: float) -> dict[str, Any]:
    """Run `code` in a Python of its own, which may crash or hang, and return the dict that it prints as JSON.

    Raises
    ------
    ProbeError
        If it takes longer than `timeout` seconds, crashes, or prints something else.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-X", "utf8", "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            creationflags=no_window(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise ProbeError(str(error)) from error
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ProbeError(lines[-1] if lines else f"ended with code {done.returncode}")
    return answer
