"""Published weights: where they come from, where they lie, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib import error as url_error
from urllib import request

from napari_mil.errors import FeatureError

from .encoder import Progress

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """A file of weights on the web; `sha256_prefix` is the part of the checksum its publisher puts into its name."""

    encoder: str
    url: str
    sha256_prefix: str
    megabytes: float

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_WEIGHTS = {
    "resnet50": Weights("resnet50", "https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61", 97.8),
    "resnet18": Weights("resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd", 44.7),
}


def weights_of(encoder: str) -> Weights | None:
    """The published weights of an encoder, None when it has none."""
    return _WEIGHTS.get(encoder)


def cache_folder() -> Path:
    """The user's cache of napari-mil (``NAPARI_MIL_CACHE`` when set)."""
    override = os.environ.get("NAPARI_MIL_CACHE")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-mil", appauthor=False))


def weights_folder() -> Path:
    return cache_folder() / "weights"


def is_cached(weights: Weights) -> bool:
    """Whether the file lies in the cache (its checksum is verified when it is used)."""
    return (weights_folder() / weights.file_name).is_file()


def file_sha256(path: Path) -> str:
    """Checksum of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cached_weights(weights: Weights, *, progress: Progress | None = None, timeout_s: float = 20.0) -> Path:
    """The verified local file of published weights, downloaded into the cache when absent.

    Raises
    ------
    FeatureError
        When the download fails (which URL, where to put the file by hand, what to use instead) or the checksum of
        the file is not the published one.
    """
    target = weights_folder() / weights.file_name
    if not target.is_file():
        _download(weights, target, progress, timeout_s)
    found = file_sha256(target)
    if not found.startswith(weights.sha256_prefix):
        raise FeatureError(
            f"{target} is damaged: its SHA-256 begins with {found[:8]}, expected {weights.sha256_prefix}. "
            "Delete the file and try again."
        )
    return target


def _download(weights: Weights, target: Path, progress: Progress | None, timeout_s: float) -> None:
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with request.urlopen(weights.url, timeout=timeout_s) as answer, open(part, "wb") as file:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
        if total and done != total:
            raise OSError(f"the connection ended after {done} of {total} bytes")
        os.replace(part, target)
    except (OSError, url_error.URLError) as error:
        raise FeatureError(
            f"The weights of {weights.encoder} ({weights.megabytes:.0f} MB) cannot be downloaded from {weights.url} "
            f"({getattr(error, 'reason', error)}). Download that file elsewhere and put it at {target}, "
            "or give its path as the weights file, or use the encoder 'texture', which needs none."
        ) from error
    finally:
        part.unlink(missing_ok=True)
