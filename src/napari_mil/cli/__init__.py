"""The command line: ``napari-mil`` alone opens the window, its commands do the same work without one.

Facts go to the standard output (as JSON with ``--json``), progress and warnings to the standard error. Exit codes:
0 done, 1 the doctor found a problem, 2 a mistake that is told in one sentence, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

from napari_mil.errors import Cancelled, MilError

from ._app import app
from ._terminal import say_error

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; the entry point of ``napari-mil``."""
    # sub-commands register themselves with the app
    from . import _encoders, _projects, _slides, _training, _window  # noqa: F401

    try:
        app()
    except MilError as error:
        say_error(str(error))
        sys.exit(2)
    except OSError as error:  # a folder that may not be written, a disk that is full
        say_error(f"{error.filename or 'a file'}: {error.strerror or error}; check its name, its rights, and the disk")
        sys.exit(2)
    except (Cancelled, KeyboardInterrupt) as error:
        say_error(str(error) or "Stopped.")
        sys.exit(130)
