"""Was a TIFF cut short? Its list of images is a chain of offsets; a chain that leaves the file has lost its end."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_MOST_IMAGES = 10_000


def cut_short(path: Path) -> str | None:
    """A sentence when a TIFF's list of images goes on behind the end of the file, else None.

    TIFF 6.0, section 2: each directory ends with the offset of the next one, 0 after the last; BigTIFF has 8 bytes
    where TIFF has 4. Readers pass over a lost end in silence: pixels are there, but scale, label and smaller levels
    that stood behind it are not.
    """
    with path.open("rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
        big = _number(file, 2, f"{order}H") == 43
        count, entry, link = (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
        offset = _number(file, 8 if big else 4, link)
        for _ in range(_MOST_IMAGES):
            if not offset:  # the end of the list
                return None
            entries = _number(file, offset, count)
            following = None
            if entries is not None:
                following = _number(file, offset + struct.calcsize(count) + entries * entry, link)
            if following is None:
                size = path.stat().st_size
                return (
                    f"{path.name} is cut short: it speaks of an image at byte {offset:,} and ends at {size:,}. What is "
                    f"there is shown; scale, label or smaller levels may be lost: copy it anew from where it was "
                    f"scanned."
                )
            offset = following
    return None


def _number(file: BinaryIO, at: int, kind: str) -> int | None:
    """The whole number at a place of a file, None behind its end."""
    if at > os.fstat(file.fileno()).st_size:  # a damaged offset may be larger than any place of a file
        return None
    file.seek(at)
    data = file.read(struct.calcsize(kind))
    return int(struct.unpack(kind, data)[0]) if len(data) == struct.calcsize(kind) else None
