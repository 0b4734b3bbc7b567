"""The Hugging Face hub: what lies in its cache, and downloads with sentences for what can go wrong.

Who logged in with ``hf auth login``, or set HF_TOKEN, is known to the hub's own library; no token is kept here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_mil.errors import FeatureError

from .encoder import Progress
from .published import PublishedEncoder
from .weights import weights_folder


def cached_file(about: PublishedEncoder, revision: str | None = None) -> Path | None:
    """The encoder's file on this computer, without asking the hub; None when it is not there.

    That is one that somebody put at `place_by_hand`, else what the hub's library keeps. A file of "main" stays the one
    that was downloaded first, whatever its authors put there later.
    """
    if revision is None and place_by_hand(about).is_file():
        return place_by_hand(about)
    folder = _cache_folder() / f"models--{about.repo.replace('/', '--')}"
    commit = revision or about.revision
    with suppress(OSError, ValueError):  # without such a name it is a commit itself
        commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
    path = folder / "snapshots" / commit / about.file
    return path if path.is_file() else None


def place_by_hand(about: PublishedEncoder) -> Path:
    """Where a file that was fetched by other means is found."""
    return weights_folder() / about.name / about.file


def commit_of(path: Path) -> str:
    """``…/snapshots/<commit>/<file>`` → commit; of a file elsewhere only that it is a local one."""
    return path.parent.name if path.parent.parent.name == "snapshots" else "local"


def download(about: PublishedEncoder, revision: str | None = None, progress: Progress | None = None) -> Path:
    """Download the encoder's file into the hub's cache.

    Raises
    ------
    FeatureError
        When the hub does not give it (which page to open, how to log in), cannot be reached (where to get the file
        by hand), or the disk is full.
    """
    from huggingface_hub import errors, hf_hub_download

    wanted = revision or about.revision
    meter: dict[str, Any] = {} if progress is None else {"tqdm_class": _meter(progress)}
    try:
        return Path(hf_hub_download(about.repo, about.file, revision=wanted, cache_dir=_cache_folder(), **meter))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise FeatureError(_unreachable(about, error)) from error
    except errors.RevisionNotFoundError as error:
        raise FeatureError(
            f"{about.url} has no revision {wanted}. {_by_hand(about)} or name another revision."
        ) from error
    except errors.EntryNotFoundError as error:
        raise FeatureError(f"{about.url} has no file {about.file} at revision {wanted}. {_by_hand(about)}.") from error
    except errors.RepositoryNotFoundError as error:  # a gated one is one of these
        raise FeatureError(_not_granted(about)) from error
    except OSError as error:
        raise FeatureError(_unreachable(about, error)) from error


def _not_granted(about: PublishedEncoder) -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        who = "you are not logged in to Hugging Face here"
        then = "log in here with: hf auth login (or set HF_TOKEN), then try again"
    else:
        who = "your Hugging Face account has no access yet (or its token is no longer valid: hf auth login)"
        then = "wait until its authors have granted it, then try again"
    return (
        f"The hub does not give the weights of {about.title}: {who}. Open {about.url} in a browser, log in, ask for "
        f"access by accepting the terms; {then}. {_by_hand(about)}."
    )


def _unreachable(about: PublishedEncoder, error: Exception) -> str:
    return (
        f"The weights of {about.title} ({about.megabytes:.0f} MB) cannot be downloaded from {about.url} "
        f"({_reason(error)}). Check the connection and the room on the disk and try again. {_by_hand(about)}."
    )


def _by_hand(about: PublishedEncoder) -> str:
    return (
        f"Or download {about.file} there with a browser and put it at {place_by_hand(about)}, or give it as the "
        "encoder's weights"
    )


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error of the hub's library."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _meter(progress: Progress) -> type:
    from tqdm import tqdm

    class Meter(tqdm):  # type: ignore[type-arg]
        """Counts for us and draws nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # older ones name a bar, which only their own class understands
            super().__init__(*args, **{**options, "disable": False})

        def display(self, *args: Any, **options: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            progress(int(self.n), int(self.total or 0))
            return shown

    return Meter


def _cache_folder() -> Path:
    """Where the hub's library keeps its files, reckoned without importing it."""
    for name, inside in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser() / inside
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).expanduser() / "huggingface" / "hub"
