"""What went wrong, as a sentence that says what to do."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

from napari_mil.errors import MilError

_SAFE = "Drawings and everything that was already saved are safe; resume the job to go on."


def describe_error(error: BaseException, title: str, log: Path | None) -> tuple[str, bool]:
    """The sentence for `error`, and whether the process should be replaced afterwards (its memory is in doubt)."""
    if isinstance(error, MilError):
        return str(error), False
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in text:
        return (
            f"{title}: the memory of the graphics card is exhausted. Close other programs that use it, choose a "
            "smaller batch or fewer patches, or choose the device “cpu”.",
            True,
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return (
            f"{title}: the computer's memory is exhausted. Close other programs, or use fewer or larger patches.",
            True,
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"{title}: the disk is full{where}. Free some space, then resume the job.", False
    if isinstance(error, PermissionError):
        return f"{title}: {error.filename or 'a file'} may not be written or read; check its permissions.", False
    first_line = text.strip().splitlines()[0] if text.strip() else "no message"
    where = f" Details are in {log}." if log is not None else ""
    return f"{title} stopped at an unexpected {type(error).__name__}: {first_line}.{where}", False


def describe_death(returncode: int | None, title: str, stderr: str) -> str:
    """The sentence for a process that ended without a word."""
    return f"{title}: the background process {_cause(returncode)}.{_last_words(stderr)} {_SAFE}"


def describe_stillbirth(returncode: int | None, stderr: str) -> str:
    """The sentence for a process that never became ready."""
    hint = "Try “napari-mil doctor”, and check that napari-mil and torch can be imported."
    return f"The background process could not start (it {_cause(returncode)}).{_last_words(stderr)} {hint}"


def _cause(returncode: int | None) -> str:
    if returncode is None:
        return "stopped answering"
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        if name in {"SIGKILL", "SIGTERM"}:
            return f"was ended from outside ({name}; the system itself does so when memory runs out)"
        return f"crashed ({name})"
    return f"ended with exit code {returncode}"


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f" Its last words: {lines[-1][:300]}." if lines else ""
