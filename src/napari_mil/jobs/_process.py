"""The parent's hold on one child process.

The child is a fresh interpreter of our own making rather than a ``multiprocessing`` one: those run the parent's
main script again, which would import napari and Qt into the child and needs a ``__main__`` guard in scripts.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing.spawn
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import psutil

# Ctrl-C is ignored before anything else; sys.path is the parent's, so that its modules are found
_BOOTSTRAP = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "import json, sys\n"
    "settings = json.loads(sys.argv[1]); sys.path[:] = settings['sys_path']\n"
    "from napari_mil.jobs._child import main\n"
    "main(settings)\n"
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Frame = dict[str, Any]


class ChildProcess:
    """A worker process, and the thread that listens to it.

    Parameters
    ----------
    on_frame, on_gone
        Called from the listening thread with (this, frame), and with (this) once, when the process is gone.
    threads
        Threads for its arithmetic.
    polite
        Whether it takes a lower priority than its parent.
    """

    def __init__(
        self,
        on_frame: Callable[[ChildProcess, Frame], None],
        on_gone: Callable[[ChildProcess], None],
        *,
        threads: int,
        polite: bool,
    ) -> None:
        self.ready = False
        self.pid: int | None = None
        self._on_frame, self._on_gone = on_frame, on_gone
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = self._start(threads, polite)
        threading.Thread(target=self._listen, name="napari-mil job listener", daemon=True).start()

    def _start(self, threads: int, polite: bool) -> subprocess.Popen[bytes]:
        settings = {
            "sys_path": [entry or os.getcwd() for entry in sys.path],
            "parent_pid": os.getpid(),
            "parent_started": psutil.Process().create_time(),
            "polite": polite,
        }
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        executable = os.fsdecode(multiprocessing.spawn.get_executable() or sys.executable)
        flags = 0
        if sys.platform == "win32":  # no console window flashes up, no Ctrl-C reaches it
            flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(
            [executable, "-P", "-X", "utf8", "-c", _BOOTSTRAP, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            creationflags=flags,
        )

    def send(self, frame: Frame) -> None:
        """Send `frame`; a process that is gone is noticed by the listener, not here."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(frame).encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once. Files are written atomically, so that nothing half-done stays behind."""
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            # a virtual environment on Windows starts a launcher, which starts the interpreter
            if self.pid is not None and self.pid != self._process.pid:
                psutil.Process(self.pid).kill()
        self._process.kill()

    def wait(self, timeout: float = 5.0) -> int | None:
        """The exit code, or None if it has not ended within `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Let go of a process that has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._stderr.close()

    def last_words(self) -> str:
        """The end of what it wrote to its standard error outside jobs."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4000))
        return self._stderr.read().decode(errors="replace")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                frame = json.loads(line)
                if frame["type"] == "ready":
                    self.pid, self.ready = frame["pid"], True
                self._on_frame(self, frame)
        self._on_gone(self)


def sensible_threads(leave: int = 1) -> int:
    """Threads for arithmetic: all cores but `leave` (the window's); a person's own OMP_NUM_THREADS is respected."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, cores - leave)
