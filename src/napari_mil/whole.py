"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES = 20  # a reader in another process keeps Windows from replacing a file, for as long as it reads


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write to the path handed out (`<name>.part`); it gets its name at the end, and is removed after an error.

    A reader, or a machine that loses its power, finds the old file or the new one, never half of it.

    Raises
    ------
    OSError
        No space, no permission, or held open by another program for two seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        for tried in range(_TRIES):
            try:
                os.replace(part, path)
                break
            except PermissionError as error:
                if tried == _TRIES - 1:
                    raise PermissionError(error.errno, "it is held open by another program", str(path)) from error
                time.sleep(0.1)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
