from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_mil.errors import FeatureError
from napari_mil.features import FeatureHeader, FeatureWriter, open_features, read_features
from napari_mil.geometry import PatchGrid


def header(**changes: Any) -> FeatureHeader:
    values: dict[str, Any] = {
        "encoder": "texture",
        "slide_fingerprint": "f00d",
        "patch_px": 224,
        "target_mpp": 0.5,
        "level0_size": (9000, 8000),
        "encoder_revision": "1",
        "weights_sha256": "none",
        "transform": "t",
        "precision": "fp32",
        "level0_magnification": 40.0,
        "tissue": {"method": "otsu"},
    }
    return FeatureHeader(**{**values, **changes})


def some_grid(count: int) -> PatchGrid:
    coords = np.random.default_rng(count).integers(0, 8000, (count, 2))
    return PatchGrid(coords, (448, 450), (400, 448), (0.25, 0.249))


def rows_for(grid: PatchGrid, dim: int = 5) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(len(grid), dim)).astype(np.float32)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 2300),
    dim=st.integers(1, 12),
    pieces=st.lists(st.integers(1, 900), min_size=1, max_size=6),
    dtype=st.sampled_from(["float16", "float32"]),
    data=st.data(),
)
def test_round_trip_whatever_the_pieces(
    tmp_path: Path, count: int, dim: int, pieces: list[int], dtype: str, data: st.DataObject
) -> None:
    grid, path = some_grid(count), tmp_path / "s.h5"
    rows = rows_for(grid, dim)
    writer, first, turn = FeatureWriter(path, header(), grid, dim, dtype=dtype, resume=False), 0, 0
    while first < count:
        if data.draw(st.booleans()):  # interrupted here, opened again
            writer.close()
            writer = FeatureWriter(path, header(), grid, dim, dtype=dtype)
            assert writer.rows_done == first
        step = pieces[turn % len(pieces)]
        writer.append(rows[first : first + step])
        first, turn = first + step, turn + 1
    assert writer.finish() == path
    found = read_features(path)
    assert np.array_equal(found.features, rows.astype(dtype).astype(np.float32))
    assert found.grid == grid
    assert found.slide_id == "s"
    with h5py.File(path) as file:
        assert file["features"].dtype == dtype
        assert file["features"].chunks == (min(count, 1024), dim)
        assert file["features"].compression is None
        assert file["coords"].dtype == np.int64
    assert not path.with_name("s.h5.part").exists()


def test_the_attributes_of_the_format(tmp_path: Path) -> None:
    grid, path = some_grid(3), tmp_path / "a slide (ü) [1].h5"
    with FeatureWriter(path, header(extra={"more": 7}), grid, 5) as writer:
        writer.append(rows_for(grid))
        writer.finish()
    with h5py.File(path) as file:
        assert set(file.attrs) >= {
            *("format_version", "slide_fingerprint", "mpp_x", "mpp_y", "mpp_source", "target_mpp", "read_level"),
            *("encoder", "encoder_revision", "weights_sha256", "transform", "precision", "tissue", "software"),
            *("rows_done", "done", "more"),
        }
        attrs = file["coords"].attrs
        assert attrs["patch_size"] == 224
        assert attrs["patch_size_level0"] == 448
        assert attrs["level0_magnification"] == 40
        assert attrs["target_magnification"] == 20
        assert attrs["overlap"] == 24
        assert (attrs["level0_width"], attrs["level0_height"]) == (9000, 8000)
    found = read_features(path, dtype=None)
    assert found.features.dtype == np.float16
    assert found.tissue == {"method": "otsu"}
    assert found.provenance["encoder"] == "texture"
    assert found.provenance["dim"] == 5
    assert found.fingerprint == "f00d"
    assert found.grid.mpp == (0.25, 0.249)


@pytest.mark.parametrize(
    "change",
    [
        {"slide_fingerprint": "beef"},
        {"encoder": "resnet50"},
        {"encoder_revision": "2"},
        {"weights_sha256": "1" * 64},
        {"transform": "u"},
        {"precision": "bf16"},
        {"target_mpp": 0.25},
        {"patch_px": 256},
        {"tissue": {"method": "manual"}},
    ],
)
def test_rows_of_other_parameters_are_never_kept(tmp_path: Path, change: dict[str, Any]) -> None:
    grid, path = some_grid(50), tmp_path / "s.h5"
    with FeatureWriter(path, header(), grid, 5) as writer:
        writer.append(rows_for(grid)[:20])
    with FeatureWriter(path, header(**change), grid, 5) as writer:
        assert writer.rows_done == 0


def test_rows_of_another_grid_dim_or_type_are_never_kept(tmp_path: Path) -> None:
    grid, path = some_grid(50), tmp_path / "s.h5"
    moved = PatchGrid(grid.coords + 1, grid.patch_px_level0, grid.stride_px_level0, grid.mpp)
    stepped = PatchGrid(grid.coords, grid.patch_px_level0, 1, grid.mpp)
    rescaled = PatchGrid(grid.coords, grid.patch_px_level0, grid.stride_px_level0, 0.3)
    others: list[tuple[PatchGrid, int, str]] = [
        (moved, 5, "float16"),
        (stepped, 5, "float16"),
        (rescaled, 5, "float16"),
    ]
    others += [(grid, 6, "float16"), (grid, 5, "float32")]
    for other, dim, dtype in others:
        with FeatureWriter(path, header(), grid, 5, resume=False) as writer:
            writer.append(rows_for(grid)[:20])
        with FeatureWriter(path, header(), grid, 5) as writer:
            assert writer.rows_done == 20
        with FeatureWriter(path, header(), other, dim, dtype=dtype) as writer:
            assert writer.rows_done == 0


def test_a_part_file_cut_off_is_begun_anew(tmp_path: Path) -> None:
    grid, path = some_grid(2000), tmp_path / "s.h5"
    with FeatureWriter(path, header(), grid, 5) as writer:
        writer.append(rows_for(grid)[:1500])
    part = path.with_name("s.h5.part")
    part.write_bytes(part.read_bytes()[:3000])
    with FeatureWriter(path, header(), grid, 5) as writer:
        assert writer.rows_done == 0
        writer.append(rows_for(grid))
        writer.finish()
    assert len(read_features(path)) == 2000


def test_whole_blocks_are_written_while_more_are_to_come(tmp_path: Path) -> None:
    grid, path = some_grid(3000), tmp_path / "s.h5"
    rows = rows_for(grid)
    with FeatureWriter(path, header(), grid, 5) as writer:
        seen = set()
        for first in range(0, 3000, 64):
            writer.append(rows[first : first + 64])
            seen.add(writer.rows_done)
        assert seen == {0, 1024, 2048}


def test_numbers_that_are_not_finite_are_refused_with_their_patch(tmp_path: Path) -> None:
    grid, path = some_grid(30), tmp_path / "slide7.h5"
    rows = rows_for(grid)
    rows[13, 2] = np.nan
    x, y = grid.coords[13]
    with FeatureWriter(path, header(), grid, 5) as writer:
        writer.append(rows[:10])
        with pytest.raises(FeatureError, match=rf"slide7: the features of patch 13 at \({x}, {y}\) are not finite"):
            writer.append(rows[10:])
    rows[13, 2] = 1e6
    with FeatureWriter(path, header(), grid, 5) as writer:
        assert writer.rows_done == 10
        with pytest.raises(FeatureError, match=r"patch 13 .* too large for float16"):
            writer.append(rows[10:])


def test_wrong_rows_and_missing_rows(tmp_path: Path) -> None:
    grid = some_grid(4)
    with FeatureWriter(tmp_path / "s.h5", header(), grid, 5) as writer:
        with pytest.raises(FeatureError, match=r"shape \(4, 6\); expected \(n, 5\)"):
            writer.append(np.zeros((4, 6)))
        with pytest.raises(FeatureError, match="more rows than its 4 patches"):
            writer.append(np.zeros((5, 5)))
        writer.append(np.zeros((3, 5)))
        with pytest.raises(FeatureError, match="has 3 rows; expected 4"):
            writer.finish()
    assert not (tmp_path / "s.h5").exists()
    with pytest.raises(FeatureError, match="no patch"):
        FeatureWriter(tmp_path / "t.h5", header(), some_grid(0), 5)


def finished(path: Path, count: int = 40) -> Path:
    grid = some_grid(count)
    with FeatureWriter(path, header(), grid, 5) as writer:
        writer.append(rows_for(grid))
        return writer.finish()


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"no feature file.*Extract"):
        read_features(tmp_path / "absent.h5")

    cut = finished(tmp_path / "cut.h5")
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(FeatureError, match="damaged or cut off"):
        read_features(cut)

    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(FeatureError, match=r"text\.h5 cannot be read"):
        read_features(text)

    nan = finished(tmp_path / "nan.h5")
    with h5py.File(nan, "r+") as file:
        file["features"][7, 1] = np.nan
        file["features"][9, 1] = np.inf
    with pytest.raises(FeatureError, match="2 of 40 rows hold NaN or infinite numbers, first row 7"):
        read_features(nan)

    undone = finished(tmp_path / "undone.h5")
    with h5py.File(undone, "r+") as file:
        file.attrs["done"] = False
        file.attrs["rows_done"] = 12
    with pytest.raises(FeatureError, match=r"unfinished .12 of 40 rows"):
        read_features(undone)

    newer = finished(tmp_path / "newer.h5")
    with h5py.File(newer, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(FeatureError, match="Update napari-mil"):
        read_features(newer)

    foreign = finished(tmp_path / "foreign.h5")
    with h5py.File(foreign, "r+") as file:
        del file.attrs["format_version"]
    with pytest.raises(FeatureError, match="another tool"):
        read_features(foreign)

    lost = finished(tmp_path / "lost.h5")
    with h5py.File(lost, "r+") as file:
        del file["coords"].attrs["patch_size_level0_xy"]
    with pytest.raises(FeatureError, match="geometry is damaged"):
        read_features(lost)


def test_an_unfinished_file_is_mentioned_when_the_finished_one_is_asked_for(tmp_path: Path) -> None:
    grid, path = some_grid(9), tmp_path / "s.h5"
    FeatureWriter(path, header(), grid, 5).close()
    with pytest.raises(FeatureError, match="unfinished one lies beside"):
        read_features(path)


def test_a_finished_file_that_cannot_be_replaced_keeps_the_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, grid = tmp_path / "s.h5", some_grid(40)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "in use")

    writer = FeatureWriter(path, header(), grid, 5)
    writer.append(rows_for(grid))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(FeatureError, match="Close the program that has it open"):
            writer.finish()
    with FeatureWriter(path, header(), grid, 5) as again:
        assert again.rows_done == 40
        again.finish()
    assert len(read_features(path)) == 40


def written(path: Path, count: int, dim: int = 5) -> Path:
    grid = some_grid(count)
    with FeatureWriter(path, header(), grid, dim, resume=False) as writer:
        writer.append(rows_for(grid, dim))
        return writer.finish()


def test_features_stay_in_their_file_until_they_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "s.h5", 2100)
    whole, lazy = read_features(path, dtype=None), open_features(path)
    assert (lazy.slide_id, lazy.dim, lazy.provenance) == (whole.slide_id, whole.dim, whole.provenance)
    assert np.array_equal(lazy.grid.coords, whole.grid.coords)
    assert not isinstance(lazy.features, np.ndarray)
    assert (lazy.features.shape, lazy.features.dtype, len(lazy.features)) == ((2100, 5), np.float16, 2100)
    assert np.array_equal(np.asarray(lazy.features), whole.features)
    assert np.asarray(lazy.features, dtype=np.float32).dtype == np.float32
    for index in (np.array([3, 1024, 2099]), np.arange(0, 2100, 2)):
        assert np.array_equal(lazy.features[index], whole.features[index])


def test_features_that_were_made_again_or_removed_meanwhile(tmp_path: Path) -> None:
    path = written(tmp_path / "s.h5", 40)
    lazy = open_features(path)
    path.unlink()
    with pytest.raises(FeatureError, match=r"s\.h5 cannot be read"):
        np.asarray(lazy.features)
    written(path, 30)
    with pytest.raises(FeatureError, match=r"\(30, 5\) now, \(40, 5\) when it was opened.*Start anew"):
        np.asarray(lazy.features)
