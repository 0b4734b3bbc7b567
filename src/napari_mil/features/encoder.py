"""What an encoder is, which ones there are, and how one is made by name.

Nothing here imports torch: a window may list the encoders without paying for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .published import PUBLISHED, PublishedEncoder

ENTRY_POINT_GROUP = "napari_mil.encoders"

Pixels = npt.NDArray[np.uint8]  # (B, h, w, 3)
Rows = npt.NDArray[np.float32]  # (B, D)
Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0 when unknown)


@runtime_checkable
class Encoder(Protocol):
    """Patches in, one feature vector each out; the row of a patch never depends on the others of its batch.

    Attributes
    ----------
    name : str
        Stands in the feature files; features of another name are never mixed.
    dim : int
        Length D of a feature vector.
    input_px : int
        Side of the square patch the encoder was made for, in pixels.
    any_size : bool
        Whether patches of other sizes than `input_px` make sense, too.
    target_mpp : float or None
        µm per pixel it is usually given; None when it does not say.
    revision, weights_sha256, transform, precision : str
        What a feature depends on besides the pixels; recorded with it. No weights: ``weights_sha256`` is "none".
    note : str
        One sentence for people.
    device : str
        Where it computes: "cpu", "cuda", "cuda:1", "mps".
    """

    name: str
    dim: int
    input_px: int
    any_size: bool
    target_mpp: float | None
    revision: str
    weights_sha256: str
    transform: str
    precision: str
    note: str
    device: str

    def encode(self, patches: Pixels) -> Rows:
        """(B, h, w, 3) uint8 RGB → (B, D) float32."""
        ...


@dataclass(frozen=True)
class EncoderInfo:
    """An encoder to choose, without loading it; ``dim`` is None when only loading would tell.

    Attributes
    ----------
    title : str
        As its authors call it; empty: as it is named.
    licence, licence_url, url : str
        Of its weights, where to read it, and where the encoder is described; empty where there is nothing more to read.
    gated : bool
        Whether its weights are given only to accounts that accepted the terms.
    terms : str
        What must be accepted before its weights are downloaded; empty where nothing must, or it was.
    missing : str
        Packages that it needs and that are not installed; empty where nothing is missing.
    target_mpp, patch_px : float or None, int or None
        µm per pixel and side of the patches it was made for; None: it takes others as well.
    """

    name: str
    dim: int | None
    needs_download: bool
    note: str
    licence: str
    download_mb: float = 0.0
    source: str = "napari-mil"
    title: str = ""
    licence_url: str = ""
    url: str = ""
    gated: bool = False
    terms: str = ""
    missing: str = ""
    target_mpp: float | None = None
    patch_px: int | None = None

    def scale_note(self, target_mpp: float, patch_px: int) -> str:
        """What to know when patches are cut otherwise than the encoder was made for; empty when they fit it."""
        if self.target_mpp is None or self.patch_px is None:
            return ""
        if abs(target_mpp / self.target_mpp - 1) < 0.03 and patch_px == self.patch_px:
            return ""
        return (
            f"{self.title or self.name} was made for patches of {self.patch_px} px at {self.target_mpp:g} µm/px. Here "
            f"they are {patch_px} px at {target_mpp:g} µm/px: its features may be worse, and are not those that others "
            "publish."
        )


class EncoderFactory(Protocol):
    """What an entry point of the group `napari_mil.encoders` names."""

    def __call__(
        self, *, weights: Path | str | None, device: str, revision: str | None, progress: Progress | None
    ) -> Encoder: ...


def _texture(*, weights: Path | str | None, device: str, revision: str | None, progress: Progress | None) -> Encoder:
    from .texture import TextureEncoder

    if weights is not None:
        raise FeatureError(f"The texture encoder has no weights, but {weights} was given. Leave the weights out.")
    return TextureEncoder()


def _resnet(name: str) -> EncoderFactory:
    def make(*, weights: Path | str | None, device: str, revision: str | None, progress: Progress | None) -> Encoder:
        from .resnet import resnet_encoder

        return resnet_encoder(name, weights=weights, device=device, progress=progress)

    return make


def _published(about: PublishedEncoder) -> EncoderFactory:
    def make(*, weights: Path | str | None, device: str, revision: str | None, progress: Progress | None) -> Encoder:
        from .published_encoder import published_encoder

        return published_encoder(about, weights=weights, device=device, revision=revision, progress=progress)

    return make


_FACTORIES: dict[str, EncoderFactory] = {
    "resnet50": _resnet("resnet50"),
    "resnet18": _resnet("resnet18"),
    "texture": _texture,
    **{name: _published(about) for name, about in PUBLISHED.items()},
}


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found = metadata.entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in found if point.name not in _FACTORIES}


def get_encoder(
    name: str | Path,
    *,
    weights: Path | str | None = None,
    device: str = "cpu",
    revision: str | None = None,
    progress: Progress | None = None,
) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    name : str or Path
        A name of `list_encoders`, or the path of a ``torch.export`` program ``*.pt2`` with its JSON beside.
    weights : Path or str, optional
        A local weights file instead of the download; where there are weights also "random", which only a test should
        want.
    device : str
        "cpu", "cuda", "cuda:1", "mps".
    revision : str, optional
        For encoders that have several.
    progress : callable (bytes so far, bytes in all), optional
        Called while weights are downloaded.

    Raises
    ------
    FeatureError
        Unknown name, a licence that was not accepted, weights that are absent, damaged or of another network, a device
        that is not there.
    """
    if str(name).lower().endswith(".pt2"):
        from .program import ProgramEncoder

        return ProgramEncoder(Path(name), device=device)
    name = str(name)
    if name in _FACTORIES:
        return _FACTORIES[name](weights=weights, device=device, revision=revision, progress=progress)
    points = _entry_points()
    if name not in points:
        known = ", ".join([*_FACTORIES, *points])
        raise FeatureError(f"There is no encoder {name!r}. Choose one of {known}, or give the path of a .pt2 program.")
    try:
        factory: EncoderFactory = points[name].load()
    except (ImportError, AttributeError) as error:
        raise FeatureError(
            f"The encoder {name!r} of {_package(points[name])} cannot be loaded ({error}). Reinstall that package."
        ) from error
    return factory(weights=weights, device=device, revision=revision, progress=progress)


def list_encoders() -> list[EncoderInfo]:
    """Every encoder that can be named, our own first; nothing heavy is imported and nothing downloaded."""
    from .weights import is_cached, weights_of

    infos = []
    for name, note in _NOTES.items():
        source = weights_of(name)
        infos.append(
            EncoderInfo(
                name=name,
                dim=_DIMS[name],
                needs_download=source is not None and not is_cached(source),
                note=note,
                licence=_LICENCES[name],
                download_mb=source.megabytes if source else 0.0,
            )
        )
    infos += [_published_info(about) for about in PUBLISHED.values()]
    for name, point in _entry_points().items():
        package = _package(point)
        infos.append(EncoderInfo(name, None, False, f"Added by {package}.", f"see {package}", source=package))
    return infos


def _published_info(about: PublishedEncoder) -> EncoderInfo:
    from .hub import cached_file
    from .licences import is_accepted
    from .published_encoder import missing_packages

    there = cached_file(about) is not None
    return EncoderInfo(
        name=about.name,
        dim=about.dim,
        needs_download=not there,
        note=about.note,
        licence=about.licence.name,
        download_mb=about.megabytes,
        source=about.repo,
        title=about.title,
        licence_url=about.licence.url,
        url=about.url,
        gated=about.gated,
        terms="" if there or is_accepted(about) else about.terms,
        missing=" and ".join(missing_packages()),
        target_mpp=about.mpp,
        patch_px=about.patch_px,
    )


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


TEXTURE_NOTE = (
    "Colour and texture statistics, no weights and no download: works offline, but weaker than a trained network."
)
_IMAGENET = "BSD-3-Clause code; weights trained on ImageNet, whose images are for non-commercial research"
_NOTES = {
    "resnet50": "ResNet-50 of ImageNet up to its third stage, 1024 numbers a patch: the papers' encoder.",
    "resnet18": "ResNet-18 of ImageNet, 512 numbers a patch: quicker than ResNet-50 and a little weaker.",
    "texture": TEXTURE_NOTE,
}
_DIMS = {"resnet50": 1024, "resnet18": 512, "texture": 124}
_LICENCES = {"resnet50": _IMAGENET, "resnet18": _IMAGENET, "texture": "BSD-3-Clause"}
