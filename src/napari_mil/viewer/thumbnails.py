"""Small pictures of slides, kept in the user's cache so that a table of hundreds shows at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.features.weights import cache_folder

SIDE_PX = 128


def slide_thumbnail(path: Path, side_px: int = SIDE_PX, *, srgb: bool = False) -> npt.NDArray[Any]:
    """(h, w, 3) uint8 picture of a slide, at most `side_px` wide and high; from the cache when the file is the same."""
    from PIL import Image

    stat = path.stat()
    name = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{side_px}" + "|srgb" * srgb
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    kept = cache_folder() / "thumbnails" / f"{key}.png"
    if kept.exists():
        with Image.open(kept) as image:
            return np.asarray(image.convert("RGB"))
    from napari_mil.slide import open_slide

    with open_slide(path, srgb=srgb) as slide:
        picture = np.asarray(slide.thumbnail(side_px))
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    Image.fromarray(picture).save(part, format="PNG")
    os.replace(part, kept)
    return picture
