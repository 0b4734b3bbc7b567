"""OME-Zarr 0.4 and 0.5: the same slide in each, its scale, its axes, and the sentence of what is no slide."""

from __future__ import annotations

import builtins
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideClosed, SlideError
from napari_mil.slide import find_slides, is_slide_file, open_slide
from napari_mil.slide.source import PixelSource, block_shape
from napari_mil.slide.watch import FileWatch
from napari_mil.slide.zarr_source import _downsamples

from .conftest import Pixels, in_threads, pattern

zarr = pytest.importorskip("zarr")

SIZES = [(1901, 2603), (950, 1301), (237, 325)]


def write_ome_zarr(
    path: Path,
    levels: list[Any],
    *,
    version: str = "0.4",
    axes: str = "cyx",
    chunks: int = 256,
    scales: list[tuple[float, float]] | None = None,
    unit: str | None = "micrometer",
    mpp: float = 0.5,
    shards: bool = False,
    **more: Any,
) -> Path:
    """An OME-Zarr of (h, w, 3) levels (or of arrays in the very axes, where these hold no "c"); scales are (x, y)."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for index, level in enumerate(levels):
        array = laid_out(level, axes) if level.ndim == 3 and "c" in axes else level
        tile = [chunks if axis in "yx" else 1 for axis in axes]
        outer = {"shards": tuple(4 * n if n > 1 else n for n in tile)} if shards else {}
        stored = group.create_array(str(index), shape=array.shape, chunks=tuple(tile), dtype=array.dtype, **outer)
        stored[...] = array
        y, x = levels[0].shape[-3:-1] if level.ndim == 3 else levels[0].shape[-2:]
        h, w = level.shape[-3:-1] if level.ndim == 3 else level.shape[-2:]
        factor = scales[index] if scales else (x / w, y / h)
        scale = [{"x": factor[0] * mpp, "y": factor[1] * mpp}.get(axis, 1.0) for axis in axes]
        datasets.append({"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"t": "time", "c": "channel"}
    named: list[dict[str, str]] = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in named:
        if axis["name"] in "xy" and unit:
            axis["unit"] = unit
    facts: dict[str, Any] = {"multiscales": [{"axes": named, "datasets": datasets, "name": "slide"}], **more}
    if version == "0.4":
        facts["multiscales"][0]["version"] = version
        group.attrs.update(facts)
    else:
        group.attrs["ome"] = {"version": version, **facts}
    return path


def laid_out(pixels: Pixels, axes: str) -> Any:
    """(h, w, 3) pixels in the order of the axes, t and z of length 1."""
    kept = [axis for axis in axes if axis in "yxc"]
    array = pixels.transpose(["yxc".index(axis) for axis in kept])
    return array[tuple(slice(None) if axis in "yxc" else None for axis in axes)]


@pytest.fixture(scope="module")
def levels() -> list[Pixels]:
    return [pattern(h, w, i) for i, (h, w) in enumerate(SIZES)]


@pytest.mark.parametrize(
    ("version", "axes", "options"),
    [
        ("0.4", "tczyx", {}),
        ("0.4", "cyx", {"chunks": 100}),
        ("0.4", "yxc", {"chunks": 1500}),
        ("0.5", "tczyx", {}),
        ("0.5", "cyx", {"shards": True}),
        ("0.5", "zcyx", {"chunks": 2048}),
    ],
)
def test_every_pixel_of_every_layout(
    tmp_path: Path, levels: list[Pixels], version: str, axes: str, options: dict[str, Any]
) -> None:
    path = write_ome_zarr(tmp_path / "slide.ome.zarr", levels, version=version, axes=axes, **options)
    with open_slide(path) as slide:
        assert isinstance(slide.source, PixelSource)
        assert (slide.vendor, slide.source.name, slide.problems) == ("ome-zarr", "zarr", [])
        assert slide.level_dimensions == tuple((w, h) for h, w in SIZES)
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.mpp_source == "file"
        for index, level in enumerate(levels):
            h, w = level.shape[:2]
            np.testing.assert_array_equal(slide.read_native(index, 0, 0, w, h), level)
            np.testing.assert_array_equal(slide.read_native(index, 37, 51, 190, 101), level[51:152, 37:227])
            width, height = slide.source.block_size(index)
            assert min(width, height) >= 256
            assert max(width, height) <= 1024
        np.testing.assert_array_equal(slide.levels[0][1000:1300, 2400:2603], levels[0][1000:1300, 2400:2603])


@pytest.mark.parametrize("whole", [True, False])
def test_blocks_are_the_levels_pixels(tmp_path: Path, levels: list[Pixels], whole: bool) -> None:
    path = write_ome_zarr(tmp_path / "slide.zarr", levels, chunks=256)
    with open_slide(path) as slide:
        blocks = [(c, r) for c in (8, 9, 10) for r in (6, 7)] if whole else [(0, 0), (10, 7), (3, 2)]
        outs = [np.empty(block_shape(slide.source, 0, *block), np.uint8) for block in blocks]
        assert slide.source.read_blocks(0, blocks, outs) == [None] * len(blocks)
        for (column, row), out in zip(blocks, outs, strict=True):
            x, y = column * 256, row * 256
            np.testing.assert_array_equal(out, levels[0][y : y + 256, x : x + 256])


def test_one_bad_chunk_takes_no_other_with_it(tmp_path: Path, levels: list[Pixels]) -> None:
    path = write_ome_zarr(tmp_path / "slide.zarr", levels, axes="yxc", chunks=256)
    bad = [p for p in (path / "0").rglob("*") if (p.is_file() and p.name.startswith("2.3")) or p.match("0/2/3/*")]
    for chunk in bad:
        chunk.write_bytes(b"no chunk")
    assert bad
    with open_slide(path) as slide:
        blocks = [(c, r) for c in (2, 3) for r in (2, 3)]
        outs = [np.empty((256, 256, 3), np.uint8) for _ in blocks]
        errors = slide.source.read_blocks(0, blocks, outs)
        assert [error is not None for error in errors] == [block == (3, 2) for block in blocks]
        assert "cannot be read" in str(errors[blocks.index((3, 2))])
        np.testing.assert_array_equal(outs[0], levels[0][512:768, 512:768])
        slide.close()
        with pytest.raises(SlideClosed):
            slide.source.read_blocks(0, blocks, outs)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    chunk=st.integers(16, 300),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    version=st.sampled_from(["0.4", "0.5"]),
)
def test_regions_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, chunk: int, box: Any, version: str
) -> None:
    level = pattern(height, width)
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    write_ome_zarr(path, [level], version=version, chunks=chunk)
    x, y = int(box[0] * (width - 1)), int(box[1] * (height - 1))
    w, h = 1 + int(box[2] * (width - x - 1)), 1 + int(box[3] * (height - y - 1))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.source.read(0, x, y, w, h), level[y : y + h, x : x + w])


@pytest.mark.parametrize(
    ("unit", "size", "expected"),
    [
        ("micrometer", 0.25, 0.25),
        ("nanometer", 250.0, 0.25),
        ("millimeter", 0.00025, 0.25),
        ("meter", 2.5e-7, 0.25),
        ("angstrom", 2500.0, 0.25),
        (None, 0.25, None),
        ("parsec", 0.25, None),
        ("micrometer", 352.0, None),
    ],
)
def test_scale_with_its_unit(tmp_path: Path, unit: str | None, size: float, expected: float | None) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [pattern(300, 400)], unit=unit, mpp=size)
    with open_slide(path) as slide:
        assert slide.mpp == (None if expected is None else pytest.approx((expected, expected)))


def test_scale_of_the_whole_image_counts_too(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [pattern(300, 400)], mpp=1.0)
    group = zarr.open_group(path)
    multiscales = group.attrs["multiscales"]
    multiscales[0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 0.3, 0.2]}]
    group.attrs["multiscales"] = multiscales
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.2, 0.3))


def test_downsamples_as_told_or_as_the_sizes_say(tmp_path: Path, levels: list[Pixels]) -> None:
    told = write_ome_zarr(tmp_path / "told.zarr", levels, scales=[(1, 1), (2, 2), (8, 8)])
    wrong = write_ome_zarr(tmp_path / "wrong.zarr", levels, scales=[(1, 1), (1, 1), (1, 1)])
    with open_slide(told) as slide:
        assert slide.level_downsamples == pytest.approx((1, 2, 8))
    with open_slide(wrong) as slide:
        assert slide.level_downsamples[1] == pytest.approx((2603 / 1301 + 1901 / 950) / 2)


def test_levels_in_any_order(tmp_path: Path, levels: list[Pixels]) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", levels, scales=[(1, 1), (2, 2), (8, 8)])
    group = zarr.open_group(path)
    multiscales = group.attrs["multiscales"]
    multiscales[0]["datasets"].reverse()
    group.attrs["multiscales"] = multiscales
    with open_slide(path) as slide:
        assert slide.level_dimensions == tuple((w, h) for h, w in SIZES)
        assert slide.mpp == pytest.approx((0.5, 0.5))


def test_grey_and_masks(tmp_path: Path) -> None:
    grey = pattern(300, 400)[..., 0]
    path = write_ome_zarr(tmp_path / "grey.zarr", [grey], axes="yx")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 400, 300), np.repeat(grey[..., None], 3, axis=2))
    path = write_ome_zarr(tmp_path / "mask.zarr", [grey > 99], axes="yx")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 400, 300)[..., 1], np.where(grey > 99, 255, 0))


DYES = {"DAPI": "0000FF", "FITC": "00FF00", "TRITC": "FF0000"}
FLUORESCENT = {"omero": {"channels": [{"label": name, "color": color} for name, color in DYES.items()]}}
COLOUR = {"omero": {"channels": [{"color": c} for c in ("FF0000", "00ff00", "#0000FF")]}}


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "more", "sentence"),
    [
        ((5, 3, 64, 64), "zcyx", "u1", {}, "z-stack of 5 planes"),
        ((7, 1, 3, 64, 64), "tzcyx", "u1", {}, "time series of 7 images"),
        ((4, 64, 64), "cyx", "u1", {}, "4 channels, as fluorescence"),
        ((2, 64, 64), "cyx", "u2", {}, "2 channels, as fluorescence"),
        ((3, 64, 64), "cyx", "u1", FLUORESCENT, "3 channels, as fluorescence"),
        ((3, 64, 64), "cyx", "u2", {}, r"16-bit pixels \(uint16\)"),
        ((64, 64), "yx", "f4", {}, r"32-bit floating-point pixels"),
        ((64, 64), "zx", "u1", {}, "cannot be understood"),
    ],
)
def test_what_is_no_slide_gets_a_sentence(
    tmp_path: Path, shape: tuple[int, ...], axes: str, dtype: str, more: dict[str, Any], sentence: str
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=shape, chunks=shape, dtype=dtype)[...] = 1
    group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": a} for a in axes], "datasets": [{"path": "0"}]}]
    group.attrs.update(more)
    with pytest.raises(SlideError, match=sentence) as error:
        open_slide(tmp_path / "a.zarr")
    assert str(error.value).startswith("a.zarr")
    assert str(error.value).endswith(".")


def test_three_channels_in_red_green_and_blue_are_a_colour(tmp_path: Path) -> None:
    level = pattern(100, 120)
    with open_slide(write_ome_zarr(tmp_path / "a.zarr", [level], **COLOUR)) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 120, 100), level)


def test_a_collection_shows_its_largest_image_and_says_so(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    small, large = pattern(100, 120), pattern(300, 400)
    write_ome_zarr(tmp_path / "a.zarr" / "0", [small], axes="tczyx")
    with open_slide(tmp_path / "a.zarr") as slide:
        assert (slide.dimensions, slide.problems) == ((120, 100), [])
    write_ome_zarr(tmp_path / "a.zarr" / "1", [large], axes="tczyx")
    with open_slide(tmp_path / "a.zarr") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 400, 300), large)
        assert slide.problems == ["a.zarr holds 2 images; the largest of them (1) is shown."]


def test_plates_tables_and_empty_folders(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2).attrs["plate"] = {"wells": []}
    zarr.open_group(tmp_path / "table.zarr", mode="w", zarr_format=3).attrs["spatialdata_attrs"] = {"version": "0.2"}
    (tmp_path / "empty.zarr").mkdir()
    zarr.open_array(tmp_path / "array.zarr", mode="w", shape=(9, 9), dtype="u1")
    for name, sentence in (
        ("plate", "plate of many images"),
        ("table", "no multiscales"),
        ("empty", "OME-Zarr"),
        ("array", "OME-Zarr"),
    ):
        with pytest.raises(SlideError, match=sentence):
            open_slide(tmp_path / f"{name}.zarr")


def test_chunks_too_large_to_be_read_piece_by_piece(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(3, 9000, 9000), chunks=(3, 9000, 9000), dtype="u1")
    group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": a} for a in "cyx"], "datasets": [{"path": "0"}]}]
    with pytest.raises(SlideError, match="stored in chunks of 3 x 9000 x 9000"):
        open_slide(tmp_path / "a.zarr")


def test_fingerprint_is_of_the_content(tmp_path: Path, levels: list[Pixels]) -> None:
    def fingerprint(path: Path) -> str:
        with open_slide(path) as slide:
            return slide.fingerprint

    for version in ("0.4", "0.5"):
        path = write_ome_zarr(tmp_path / f"{version}.zarr", levels, version=version)
        before = fingerprint(path)
        moved = tmp_path / f"moved-{version}.zarr"
        shutil.copytree(path, moved)
        assert fingerprint(moved) == before
        zarr.open_group(moved).create_group("labels").create_array("0", shape=(9, 9), dtype="u1")[...] = 1
        assert fingerprint(moved) == before, "labels drawn later do not make another slide of it"
        (moved / "damaged").mkdir()
        (moved / "damaged" / "zarr.json").write_text('{"node_ty')
        assert len(fingerprint(moved)) == len(before), "what is nobody's metadata is no reason to give up"
        other = write_ome_zarr(tmp_path / "other.zarr", [pattern(h, w, 9) for h, w in SIZES], version=version)
        assert fingerprint(other) != before


def test_without_zarr_a_sentence_says_how_to_get_it(
    tmp_path: Path, levels: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", levels[2:])
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "zarr":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "zarr")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SlideError, match=r"pip install napari-mil\[zarr\]"):
        open_slide(path)


def test_folders_of_images_are_found_and_not_looked_into(tmp_path: Path, levels: list[Pixels]) -> None:
    slides = [
        write_ome_zarr(tmp_path / "a.ome.zarr", levels[2:]),
        write_ome_zarr(tmp_path / "case" / "b.zarr", levels[2:], version="0.5"),
        write_ome_zarr(tmp_path / "case" / "without suffix", levels[2:]),
    ]
    (slides[0] / "0" / "thumbnail.png").write_bytes(b"")
    zarr.open_group(tmp_path / "table.zarr", mode="w").attrs["spatialdata_attrs"] = {}
    (tmp_path / "table.zarr" / "picture.png").write_bytes(b"")
    (tmp_path / "file.zarr").write_bytes(b"")
    assert find_slides(tmp_path) == sorted(slides)
    assert find_slides(slides[0]) == [slides[0]]
    assert is_slide_file("a.ome.zarr")


def test_files_put_into_the_folder_change_nothing_but_another_image_does(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [pattern(700, 900)])
    with open_slide(path) as slide:
        watch = FileWatch(path)
        (path / ".DS_Store").write_bytes(b"")
        (path / "labels").mkdir()
        assert watch.look(now=True)
        shutil.rmtree(path)
        assert not watch.look(now=True)
        assert "a.zarr was moved or removed" in (watch.sentence or "")
        with pytest.raises(SlideError, match="can no longer be read"):
            _ = slide.fingerprint


def test_many_threads_at_once(tmp_path: Path, levels: list[Pixels]) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", levels, chunks=128)
    wrong: list[Any] = []
    with open_slide(path) as slide:

        def hammer(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(40):
                x, y = int(random.integers(0, 2400)), int(random.integers(0, 1700))
                if not np.array_equal(slide.source.read(0, x, y, 200, 200), levels[0][y : y + 200, x : x + 200]):
                    wrong.append((x, y))

        in_threads(hammer)
    assert wrong == []


@given(
    size=st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)),
    factor=st.sampled_from([2, 3, 4]),
    count=st.integers(1, 8),
    up=st.booleans(),
    unit=st.floats(1e-3, 1e3),
)
def test_told_factors_win_however_writers_round_sizes(
    size: tuple[int, int], factor: int, count: int, up: bool, unit: float
) -> None:
    factors = [factor**k for k in range(count)]
    sizes = tuple(
        (-(-size[0] // f), -(-size[1] // f)) if up else (max(1, size[0] // f), max(1, size[1] // f)) for f in factors
    )
    scales = [{"x": f * unit, "y": f * unit, "c": 1.0} for f in factors]
    found = _downsamples(sizes, scales)
    for (w, h), f, downsample in zip(sizes, factors, found, strict=True):
        rounded = abs(w * f - size[0]) <= 2 * f and abs(h * f - size[1]) <= 2 * f
        assert downsample == pytest.approx(f if rounded else (size[0] / w + size[1] / h) / 2)
    wrong = [{**scale, "x": scale["x"] * 7} if k else scale for k, scale in enumerate(scales)]
    for (w, h), downsample in list(zip(sizes, _downsamples(sizes, wrong), strict=True))[1:]:
        if w > 4:
            assert downsample == pytest.approx((size[0] / w + size[1] / h) / 2)
