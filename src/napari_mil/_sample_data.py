"""File › Open Sample: the synthetic cohort, and one real slide by download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mil.lesion import LesionSet

LayerData = tuple[Any, dict[str, Any], str]

CMU_NAME = "CMU-1-Small-Region.svs"
CMU_URL = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
CMU_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def synthetic_cohort() -> list[LayerData]:
    """Make the sample cohort if need be, and show its first slide with tumour and the outlines of it.

    Its project then stands first among the recent projects of the MIL dock.
    """
    from napari.utils import progress

    from napari_mil.sample import create_sample, sample_folder
    from napari_mil.study import Project
    from napari_mil.viewer.recent import remember

    with progress(total=0, desc="Sample cohort") as bar:

        def show(done: int, total: int, sentence: str) -> None:
            bar.total = total
            bar.update(done - bar.n)
            bar.set_description(sentence)

        project = Project.open(create_sample(sample_folder(), progress=show))
    remember(project.folder)
    row = next(row for row in project.slides if row.label == "tumor")
    layers = _read(project.slide_path(row.slide_id))
    mpp = layers[-1][1]["scale"]  # (y, x)
    return [*layers, _outlines(project.lesions(row.slide_id), mpp)]


def cmu_small_region() -> list[LayerData]:
    """Download CMU-1-Small-Region.svs (1.9 MB, CC0) once, check it, and show it."""
    return _read(fetch_cmu())


def fetch_cmu() -> Path:
    """Path of CMU-1-Small-Region.svs in the user's cache, downloaded and checked when it isn't there.

    Raises
    ------
    SlideError
        When it cannot be downloaded, or is not the file it should be.
    """
    import pooch

    from napari_mil.errors import SlideError
    from napari_mil.features.weights import cache_folder

    folder = cache_folder() / "sample"
    try:
        return Path(pooch.retrieve(CMU_URL, known_hash=f"sha256:{CMU_SHA256}", fname=CMU_NAME, path=folder))
    except OSError as error:  # no network, no such server, no room on the disk
        raise SlideError(
            f"{CMU_NAME} could not be downloaded from {CMU_URL} ({error}). "
            f"Check the network and try again, or put the file into {folder} yourself; "
            "the synthetic cohort needs no network."
        ) from error
    except ValueError as error:  # the checksum is another
        raise SlideError(
            f"{CMU_NAME} was downloaded, but is not the expected file (its SHA-256 differs). Try again later."
        ) from error


def _read(path: Path) -> list[LayerData]:
    from napari_mil._reader import get_reader

    reader = get_reader(str(path))
    return list(reader(str(path))) if reader is not None else []


def _outlines(lesions: LesionSet, mpp: Sequence[float]) -> LayerData:
    """A Shapes layer of lesions, its vertices (y, x) in level-0 pixels."""
    import numpy as np

    from napari_mil.lesion.parts import polygons_of

    polygons = [polygon for lesion in lesions for polygon in polygons_of(lesion.geometry)]
    rings = [np.asarray(polygon.exterior.coords)[:-1, ::-1] for polygon in polygons]
    look = {"edge_color": "#c80000", "face_color": "transparent", "edge_width": 6, "units": ("µm", "µm")}
    place = {"scale": tuple(mpp), "translate": tuple(-m / 2 for m in mpp)}
    return rings, {"name": "Outlines", "shape_type": "polygon", **look, **place}, "shapes"
