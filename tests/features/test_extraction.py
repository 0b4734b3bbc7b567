from __future__ import annotations

import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from napari_mil.errors import FeatureError
from napari_mil.features import ExtractReport, extract, get_encoder, kept_precision, read_features
from napari_mil.geometry import PatchGrid

from .conftest import FakeSlide


class MeanEncoder:
    """Mean colour and corner pixel of each patch: shows at once whether a row belongs to its patch."""

    name, dim, input_px, any_size, target_mpp = "mean", 6, 64, True, 0.5
    revision, weights_sha256, transform, precision, note, device = "1", "none", "mean", "fp32", "", "cpu"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.batches.append(len(patches))
        rows = np.concatenate([patches.mean(axis=(1, 2)), patches[:, 0, 0]], axis=1)
        return rows.astype(np.float32)


def run(*args: Any, **options: Any) -> tuple[list[ExtractReport], Path]:
    generator, reports = extract(*args, **options), []
    while True:
        try:
            reports.append(next(generator))
        except StopIteration as stop:
            return reports, stop.value


def expected(slide: FakeSlide, grid: PatchGrid) -> npt.NDArray[np.float32]:
    stack = np.stack([slide.pixels[y : y + 64, x : x + 64] for x, y in grid.coords])
    return MeanEncoder().encode(stack).astype(np.float16).astype(np.float32)


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("napari-mil-reader")]


@pytest.mark.parametrize(("batch_size", "readers"), [(1, 1), (7, 2), (64, 3)])
def test_every_row_belongs_to_its_patch(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path, batch_size: int, readers: int
) -> None:
    reports, path = run(slide, grid, MeanEncoder(), tmp_path / "s1.h5", batch_size=batch_size, readers=readers)
    assert path == tmp_path / "s1.h5"
    found = read_features(path)
    assert np.array_equal(found.features, expected(slide, grid))
    assert found.grid == grid
    assert found.fingerprint == slide.fingerprint
    assert found.patch_px == 64
    assert found.target_mpp == 0.5
    assert reports[0].done == 0
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert reports[-1].done == reports[-1].total == len(grid)
    assert reports[-1].seconds_left == 0
    assert all(r.slide_id == "s1" for r in reports)
    json.dumps(reports[-1].to_dict())
    assert not reader_threads()


def test_done_already(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    run(slide, grid, MeanEncoder(), tmp_path / "s.h5")
    reads, encoder = slide.reads, MeanEncoder()
    reports, path = run(slide, grid, encoder, tmp_path / "s.h5")
    assert path.is_file()
    assert len(reports) == 1
    assert reports[0].done == len(grid)
    assert "Already done" in reports[0].message
    assert slide.reads == reads
    assert encoder.batches == []


def test_done_in_half_precision_is_not_done_in_single(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    for dtype, message in (
        ("float16", "Reading the first patches."),
        ("float32", "Reading the first patches."),
        ("float16", "Already done with these settings."),
    ):
        reports, _ = run(slide, grid, "texture", out, dtype=dtype)
        assert reports[0].message == message
    assert read_features(out, dtype=None).features.dtype == np.float32


def test_a_folder_that_cannot_be_made_is_a_sentence(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(FeatureError, match="cannot be written") as error:
        run(slide, grid, "texture", tmp_path / "a file" / "s.h5")
    assert "Errno" not in str(error.value)


def test_cancelled_and_gone_on_with_gives_the_same_file(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    encoder = get_encoder("texture")
    _, whole = run(slide, grid, encoder, tmp_path / "whole.h5", batch_size=8)
    out = tmp_path / "s.h5"
    generator = extract(slide, grid, encoder, out, batch_size=8)
    while next(generator).done < 24:
        pass
    generator.close()
    assert not reader_threads()
    assert not out.exists()
    assert out.with_name("s.h5.part").is_file()
    reports, path = run(slide, grid, encoder, out, batch_size=8)
    assert reports[0].done == 24
    assert "Going on after 24 of 48" in reports[0].message
    one, other = read_features(whole, dtype=None), read_features(path, dtype=None)
    assert np.array_equal(one.features, other.features)
    assert one.grid == other.grid
    assert one.attrs == other.attrs


def test_changed_parameters_start_anew(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"

    def interrupted() -> None:
        out.unlink(missing_ok=True)
        generator = extract(slide, grid, MeanEncoder(), out, batch_size=8, tissue={"a": 1})
        while next(generator).done < 24:
            pass
        generator.close()

    other_weights, other_transform = MeanEncoder(), MeanEncoder()
    other_weights.weights_sha256 = "f" * 64  # type: ignore[misc]
    other_transform.transform = "median"  # type: ignore[misc]
    turned = grid.select(np.arange(len(grid))[::-1])
    changed: list[tuple[FakeSlide, PatchGrid, MeanEncoder, dict[str, Any]]] = [
        (FakeSlide(seed=5), grid, MeanEncoder(), {}),
        (slide, turned, MeanEncoder(), {}),
        (slide, grid, other_weights, {}),
        (slide, grid, other_transform, {}),
        (slide, grid, MeanEncoder(), {"patch_px": 32}),
        (slide, grid, MeanEncoder(), {"tissue": {"a": 2}}),
        (slide, grid, MeanEncoder(), {"resume": False}),
    ]
    for other, cells, encoder, options in changed:
        interrupted()
        reports, _ = run(other, cells, encoder, out, batch_size=8, **{"tissue": {"a": 1}, **options})
        assert reports[0].done == 0, options
        assert sum(encoder.batches) == len(grid)
    interrupted()
    encoder = MeanEncoder()
    run(slide, grid, encoder, out, batch_size=8, tissue={"a": 1})
    assert sum(encoder.batches) == 24


def test_a_finished_file_of_other_parameters_is_replaced_only_when_the_new_one_is_done(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    run(slide, grid, MeanEncoder(), out)
    changed = FakeSlide(seed=9)
    generator = extract(changed, grid, MeanEncoder(), out, batch_size=8)
    next(generator)
    next(generator)
    assert read_features(out).fingerprint == slide.fingerprint
    for _ in generator:
        pass
    assert read_features(out).fingerprint == changed.fingerprint


def test_a_patch_that_cannot_be_read_is_named_and_the_rest_kept(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path
) -> None:
    x, y = (int(v) for v in grid.coords[37])
    slide.broken = (x + 5, y + 5)
    with pytest.raises(FeatureError, match=rf"bad slide: patch 37 at \({x}, {y}\) cannot be read .the tile is damaged"):
        run(slide, grid, MeanEncoder(), tmp_path / "bad slide.h5", batch_size=8)
    assert not reader_threads()
    slide.broken = None
    reports, path = run(slide, grid, MeanEncoder(), tmp_path / "bad slide.h5", batch_size=8)
    assert reports[0].done == 32
    assert np.array_equal(read_features(path).features, expected(slide, grid))


def test_the_encoders_failure_stops_the_readers_and_keeps_the_rows(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path
) -> None:
    class Failing(MeanEncoder):
        def encode(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            rows = super().encode(patches)
            if len(self.batches) == 3:
                rows[2] = np.nan
            return rows

    with pytest.raises(FeatureError, match=r"patch 18 .* not finite"):
        run(slide, grid, Failing(), tmp_path / "s.h5", batch_size=8)
    assert not reader_threads()
    assert run(slide, grid, MeanEncoder(), tmp_path / "s.h5", batch_size=8)[0][0].done == 16


def test_what_makes_no_sense_is_refused_before_anything_is_written(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    with pytest.raises(FeatureError, match=r"has no patches.*tissue"):
        run(slide, grid.select(np.array([], dtype=int)), MeanEncoder(), out)
    with pytest.raises(FeatureError, match="at least 1"):
        run(slide, grid, MeanEncoder(), out, batch_size=0)
    with pytest.raises(FeatureError, match="no encoder 'nonsense'"):
        run(slide, grid, "nonsense", out)
    slide.mpp = (0.25, 0.25)
    with pytest.raises(FeatureError, match="Make the grid again"):
        run(slide, grid, MeanEncoder(), out)
    slide.mpp = None
    with pytest.raises(FeatureError, match="µm per pixel is unknown"):
        run(slide, grid, MeanEncoder(), out)
    assert list(tmp_path.glob("s.h5*")) == []


def test_few_batches_are_held_at_once(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    generator = extract(slide, grid, MeanEncoder(), tmp_path / "s.h5", batch_size=2, readers=2)
    next(generator)
    next(generator)
    time.sleep(0.2)  # the readers may go on, but not far
    assert slide.reads <= 2 * 5
    generator.close()


def test_the_scale_that_was_given_is_recorded(slide: FakeSlide, tmp_path: Path) -> None:
    slide.mpp = (0.252, 0.252)
    grid = PatchGrid([(0, 0), (128, 0)], 127, 127, slide.mpp)
    _, path = run(slide, grid, MeanEncoder(), tmp_path / "a.h5", patch_px=64, target_mpp=0.5)
    assert read_features(path).target_mpp == 0.5
    assert read_features(path).attrs["effective_mpp_x"] == pytest.approx(127 * 0.252 / 64)
    _, path = run(slide, grid, MeanEncoder(), tmp_path / "b.h5", patch_px=32, target_mpp=0.5)
    assert read_features(path).target_mpp == pytest.approx(1.0001, abs=1e-3)  # not what was asked for: said so

    class Fixed(MeanEncoder):
        any_size, input_px = False, 48

    _, path = run(slide, grid, Fixed(), tmp_path / "c.h5", patch_px=64, target_mpp=0.5)
    assert read_features(path).patch_px == 48


def test_a_real_slide_with_a_real_network(shared_data: Path, tmp_path: Path, one_thread: None) -> None:
    from napari_mil.slide import TileConfig, open_slide, tile

    encoder = get_encoder(shared_data / "weights" / "resnet50_layer3.pt2")
    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        grid = tile(slide, TileConfig()).select(np.array([40, 57, 12, 85]))
        _, path = run(slide, grid, encoder, tmp_path / "cmu.h5", batch_size=2, target_mpp=0.5, patch_px=224)
        once = encoder.encode(np.stack([slide.read(int(x), int(y), 224, 224) for x, y in grid.coords]))
    found = read_features(path)
    assert found.features.shape == (4, 1024)
    assert found.encoder == "resnet50_layer3"
    assert found.target_mpp == 0.5
    assert np.abs(found.features - once).max() < 2e-3 * np.abs(once).max()


class HalfSlide(FakeSlide):
    """One whose level can be decoded at half its size, here by taking each second pixel."""

    def can_halve(self, level: int) -> bool:
        return True

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.pixels[::2, ::2][y : y + height, x : x + width])


def test_the_filters_are_recorded_and_their_rows_never_mixed(grid: PatchGrid, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    generator = extract(FakeSlide(), grid, MeanEncoder(), out, batch_size=8, patch_px=32)
    while next(generator).done < 24:
        pass
    generator.close()
    half = HalfSlide()
    reports, _ = run(half, grid, MeanEncoder(), out, batch_size=8, patch_px=32)
    assert reports[0].done == 0
    found = read_features(out)
    assert found.attrs["resampling"] == "jpeg-dct-4x4, area"
    stack = np.stack([half.pixels[y : y + 64 : 2, x : x + 64 : 2] for x, y in grid.coords])
    assert np.array_equal(found.features, MeanEncoder().encode(stack).astype(np.float16).astype(np.float32))
    run(half, grid, MeanEncoder(), tmp_path / "full.h5")
    assert read_features(tmp_path / "full.h5").attrs["resampling"] == "area"  # nothing was halved


def test_a_finished_file_of_an_earlier_version_is_not_made_anew(grid: PatchGrid, tmp_path: Path) -> None:
    """Those say nothing of filters, and were made before tiles were decoded at half their size."""
    out = tmp_path / "s.h5"
    run(FakeSlide(), grid, MeanEncoder(), out, patch_px=32)
    with h5py.File(out, "r+") as file:
        del file.attrs["resampling"]
    before, encoder = read_features(out), MeanEncoder()
    reports, _ = run(HalfSlide(), grid, encoder, out, patch_px=32)
    assert [report.message for report in reports] == ["Already done with these settings."]
    assert encoder.batches == []
    assert np.array_equal(read_features(out).features, before.features)


def test_rows_of_another_precision_are_never_gone_on_with(slide: FakeSlide, grid: PatchGrid, tmp_path: Path) -> None:
    class Coarse(MeanEncoder):
        precision, precision_cosine, backend = "bf16", 0.9995, "torch"

    out = tmp_path / "s.h5"
    assert kept_precision(tmp_path) is None
    with h5py.File(tmp_path / "imported.h5", "w") as file:
        file.attrs["precision"] = "unknown"
    assert kept_precision(tmp_path) is None
    generator = extract(slide, grid, Coarse(), out, batch_size=8)
    while next(generator).done < 24:
        pass
    generator.close()
    assert kept_precision(tmp_path) == "bf16"  # an unfinished file says it, too
    assert run(slide, grid, MeanEncoder(), out, batch_size=8)[0][0].done == 0
    assert read_features(out).attrs["precision"] == "fp32"
    run(slide, grid, Coarse(), out)
    attrs = read_features(out).attrs
    assert (attrs["precision"], attrs["precision_cosine"], attrs["backend"]) == ("bf16", 0.9995, "torch")


def test_memory_stays_bounded_however_many_patches(tmp_path: Path) -> None:
    """What is held grows with the cache and the batches, not with the slide."""
    slide = FakeSlide((2048, 2048))
    grid = PatchGrid([(x, y) for y in range(0, 1984, 16) for x in range(0, 1984, 16)], 64, 16, 0.5)

    class Quick(MeanEncoder):
        def encode(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return patches[:, :2, 0].reshape(len(patches), 6).astype(np.float32)

    tracemalloc.start()
    run(slide, grid, Quick(), tmp_path / "s.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(grid) > 15_000
    assert peak < 90e6  # all patches would be 189 MB


def test_an_encoder_by_name_computes_in_the_precision_that_was_asked_for(
    slide: FakeSlide, grid: PatchGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def chosen(encoder: Any, precision: str, backend: str) -> Any:
        asked.append((precision, backend))
        return encoder

    monkeypatch.setattr("napari_mil.features.extraction.in_precision", chosen)
    run(slide, grid, "texture", tmp_path / "a.h5")
    run(slide, grid, "texture", tmp_path / "b.h5", precision="fp32", backend="torch")
    run(slide, grid, MeanEncoder(), tmp_path / "c.h5", precision="bf16")  # an object computes as it does
    assert asked == [("auto", "auto"), ("fp32", "torch")]
