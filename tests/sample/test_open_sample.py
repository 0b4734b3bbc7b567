"""File › Open Sample, as napari calls it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mil import _sample_data
from napari_mil.errors import SlideError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, with its list of recent projects."""
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cohort_opens_with_its_outlines_and_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from napari.components import ViewerModel
    from npe2 import PluginManager

    import napari_mil.sample as sample
    from napari_mil.viewer.recent import recent_projects

    PluginManager.instance().discover()  # as napari does when it starts
    full = sample.create_sample

    def small(folder: Path, **options: Any) -> Path:
        return full(folder, n_slides=2, size=(1536, 1024), **options)

    monkeypatch.setattr(sample, "create_sample", small)
    viewer = ViewerModel()
    layers = viewer.open_sample("napari-mil", "synthetic-cohort")
    slide, outlines = layers[-2], layers[-1]
    assert slide.multiscale
    assert slide.data[0].shape == (1024, 1536, 3)
    np.testing.assert_allclose(slide.scale, (0.5, 0.5), atol=1e-6)
    assert type(outlines).__name__ == "Shapes"
    assert outlines.nshapes >= 1

    # the outlines lie on the tumour: its truth, sampled at their middle
    from PIL import Image

    slide_id = slide.name.split(".")[0]
    truth = np.asarray(Image.open(sample.sample_folder() / "truth" / f"{slide_id}.png"))
    y, x = outlines.data[0].mean(axis=0)
    assert truth[int(y // 16), int(x // 16)] == 255
    np.testing.assert_allclose(outlines.data_to_world((0.5, 0.5)), slide.data_to_world((0, 0)), atol=1e-9)

    assert recent_projects() == [sample.sample_folder() / "project"]


def test_the_real_slide_is_the_right_one(cache: Path, shared_data: Path) -> None:
    (cache / "sample").mkdir(parents=True)
    shutil.copy(shared_data / "wsi" / "CMU-1-Small-Region.svs", cache / "sample")
    assert _sample_data.fetch_cmu() == cache / "sample" / "CMU-1-Small-Region.svs"  # no download: its checksum is right
    layers = _sample_data.cmu_small_region()
    assert layers[-1][0][0].shape == (2967, 2220, 3)


def test_without_a_network_it_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    with pytest.raises(
        SlideError, match=r"could not be downloaded.*Check the network.*synthetic cohort needs no network"
    ):
        _sample_data.cmu_small_region()


def test_another_file_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.svs"
    wrong.write_bytes(b"not the slide")
    monkeypatch.setattr(_sample_data, "CMU_URL", wrong.as_uri().replace("file://", "http://127.0.0.1:9"))
    with pytest.raises(SlideError, match="could not be downloaded"):
        _sample_data.fetch_cmu()

    def other(*_: object, **__: object) -> None:
        raise ValueError("SHA256 hash of downloaded file does not match")

    import pooch

    monkeypatch.setattr(pooch, "retrieve", other)
    with pytest.raises(SlideError, match="not the expected file"):
        _sample_data.fetch_cmu()
