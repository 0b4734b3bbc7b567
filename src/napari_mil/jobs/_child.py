"""The process that does the work: waits for jobs on its standard input, answers with JSON lines.

It imports no window, keeps torch warm between jobs, ignores Ctrl-C (its parent decides), takes a lower
priority than the window, and ends as soon as its parent is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from napari_mil.errors import Cancelled

from ._context import JobContext
from ._failures import describe_error
from ._outbox import Outbox
from ._specs import parse_spec
from ._status import plain


def main(settings: dict[str, Any]) -> None:
    """Serve jobs until the parent says so, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands, answers = _private_pipes()
    faulthandler.enable(file=2)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    if settings.get("polite", True):
        _lower_priority()
    Child(commands, Outbox(answers, (settings["parent_pid"], settings["parent_started"]))).serve()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take stdin and stdout for ourselves, so that a stray print or a library cannot break the conversation."""
    commands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, answers


def _lower_priority() -> None:
    with contextlib.suppress(OSError, psutil.Error):  # a courtesy, never a reason to stop
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(10)


class Child:
    """One job at a time from the parent's commands: ``run``, ``warm``, ``cancel``, ``exit``."""

    def __init__(self, commands: BinaryIO, outbox: Outbox) -> None:
        self._commands = commands
        self._outbox = outbox
        self._todo: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._contexts: dict[str, JobContext] = {}

    def serve(self) -> None:
        """Work until told to exit."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        self._outbox.send({"type": "ready", "pid": os.getpid()})
        while True:
            command = self._todo.get()
            if command["do"] == "exit":
                return
            if command["do"] == "warm":
                self._warm(command["modules"])
            elif command["do"] == "run":
                self._run(command)

    def _listen(self) -> None:
        for line in self._commands:
            command = json.loads(line)
            if command["do"] == "cancel":
                context = self._contexts.get(command["job"])
                if context is not None:
                    context.stop.set()
                continue
            if command["do"] == "run":  # known from here on, so that a cancel right behind it is not lost
                self._contexts[command["job"]] = JobContext(command["job"], self._outbox)
            self._todo.put(command)
        os._exit(0)  # the parent closed its end, or died

    def _warm(self, modules: list[str]) -> None:
        for name in modules:
            module, _, attribute = name.partition(":")
            try:
                imported = importlib.import_module(module)
                if attribute:  # public names are loaded on first use
                    getattr(imported, attribute)
            except (ImportError, AttributeError):  # a job that needs it will say so
                logging.getLogger(__name__).warning("could not import %s ahead of time", name, exc_info=True)
        self._outbox.send({"type": "warm"})

    def _run(self, command: dict[str, Any]) -> None:
        context = self._contexts[command["job"]]
        log = Path(command["log"]) if command.get("log") else None
        ending: dict[str, Any]
        with _logged_to(log):
            try:
                ending = self._work(command, context)
            except Cancelled:
                ending = {"phase": "cancelled"}
            except Exception as error:
                traceback.print_exc()
                title = parse_spec(command["spec"]).title
                sentence, recycle = describe_error(error, title, log)
                ending = {"phase": "failed", "error": sentence, "recycle": recycle}
        del self._contexts[command["job"]]
        _release_memory()
        self._outbox.send({"type": "end", "job": command["job"], **ending})

    def _work(self, command: dict[str, Any], context: JobContext) -> dict[str, Any]:
        from ._work import work

        self._outbox.send({"type": "started", "job": context.job_id})
        generator = work(parse_spec(command["spec"]), context)
        try:
            while True:
                context.check_cancelled()
                try:
                    report = next(generator)
                except StopIteration as stop:
                    result = plain(stop.value)
                    return {"phase": "done", "result": result if isinstance(result, dict) else {"value": result}}
                context.report(report)
        finally:
            generator.close()


@contextlib.contextmanager
def _logged_to(log: Path | None) -> Iterator[None]:
    """Whatever is printed meanwhile, by Python or by C, goes to `log`."""
    if log is None:
        yield
        return
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a read-only project: the job may still work
        yield
        return
    saved = os.dup(2)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved, 1)
        os.dup2(saved, 2)
        os.close(saved)


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
