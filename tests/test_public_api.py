"""The names that scripts outside the package rely on: called as documented, with what they must give back.

Here slides, features, projects and commands; `test_public_api_mil.py` and `test_public_api_maps.py` have the rest. A
change of a signature is seen here before a script breaks; what each name does in depth is tested in the folder
of its room.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import shutil
import types
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

import napari_mil
from napari_mil import (
    Bag,
    ExtractReport,
    JobStatus,
    Method,
    PatchGrid,
    Project,
    Slide,
    attention_map,
    compare_maps,
    experiment,
    extract,
    fit,
    mil,
    open_slide,
    patch_labels,
    predict,
    read_features,
    read_lesions,
    tile,
    tissue_mask,
    write_lesions,
)

DOCUMENTED = {
    *("open_slide", "Slide", "PatchGrid", "tissue_mask", "tile", "read_lesions", "write_lesions", "LesionSet"),
    *("patch_labels", "extract", "Bag", "Method", "fit", "predict", "attention_map", "compare_maps", "Project"),
    "experiment",
}
MPP = (0.25, 0.3)
SIZE = (2200, 1500)  # width, height


def drained(job: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """Reports of a generator, and what it returns."""
    reports = []
    while True:
        try:
            reports.append(next(job))
        except StopIteration as end:
            return reports, end.value


def in_json(report: Any) -> dict[str, Any]:
    """A report as plain JSON, there and back; fails where something in it is not."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))
    return plain


def frozen(report: Any) -> bool:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(report, dataclasses.fields(report)[0].name, None)
    return True


def signature(call: Any) -> list[str]:
    """Parameters in order, those that can only be named with a star."""
    found = inspect.signature(call).parameters.values()
    return [("*" if p.kind is p.KEYWORD_ONLY else "") + p.name for p in found]


def painted(width: int, height: int) -> npt.NDArray[np.uint8]:
    """White, and on it a block of textured purple: tissue from (300, 200) to (1700, 1300)."""
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), 245, np.uint8)
    image[200:1300, 300:1700] = rng.integers(60, 190, (1100, 1400, 3))
    return image


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF with native levels 1 and 4, and pixels that are not square."""
    path = tmp_path_factory.mktemp("slides") / "P1 [a] (é).tif"
    image = painted(*SIZE)
    with tifffile.TiffWriter(path) as file:
        for kind, level in ((0, image), (1, image[::4, ::4])):
            file.write(
                level,
                tile=(256, 256),
                photometric="rgb",
                compression="deflate",
                subfiletype=kind,
                resolution=(1e4 / MPP[0], 1e4 / MPP[1]),
                resolutionunit="CENTIMETER",
            )
    return path


@pytest.fixture(scope="module")
def slide(slide_path: Path) -> Any:
    with open_slide(slide_path) as opened:
        yield opened


class TestNames:
    def test_all_documented_names_are_there(self) -> None:
        assert DOCUMENTED <= set(napari_mil.__all__) <= set(dir(napari_mil))
        assert all(getattr(napari_mil, name) is not None for name in napari_mil.__all__)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = napari_mil.no_such_name

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            (open_slide, ["path", "*mpp", "*srgb"]),
            (Slide.read, ["self", "x", "y", "width", "height", "level"]),
            (Slide.thumbnail, ["self", "max_px"]),
            (PatchGrid, ["coords", "patch_px_level0", "stride_px_level0", "mpp"]),
            (tissue_mask, ["slide", "config"]),
            (tile, ["slide", "config", "tissue", "ignore"]),
            (patch_labels, ["lesions", "grid", "*min_overlap", "*rule", "*partial", "*classes"]),
            (attention_map, ["grid", "scores", "*normalisation"]),
            (read_lesions, ["path"]),
            (write_lesions, ["lesions", "path", "format"]),
            (mil.attention_target, ["labels", "tissue_pixels"]),
            (mil.threshold_attention, ["attention", "threshold"]),
            (mil.consistency_loss, ["student", "teacher", "temperature"]),
            (mil.ema_update, ["teacher", "student", "momentum"]),
            (mil.convert_state_dict, ["state", "source"]),
            (mil.mask_instances, ["scores", "ratios", "*fusion", "*generator", "*permutations", "*labels"]),
            (mil.MaskRatios, ["high", "low", "random", "high_random"]),
        ],
    )
    def test_signatures(self, call: Any, expected: list[str]) -> None:
        assert signature(call) == expected

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            (extract, ["slide", "grid", "encoder", "out", "*device"]),
            (fit, ["method", "train", "validation", "*seed", "*device", "*out"]),
            (predict, ["run", "bag"]),
            (compare_maps, ["maps", "lesions", "grid"]),
            (experiment, ["project", "methods", "protocol", "*executor"]),
            (mil.rank_loss, ["scores", "labels", "*sigma", "*margin", "*pairs"]),
            (mil.attention_induction_loss, ["attention", "target"]),
            (mil.build_aggregator, ["name", "in_dim", "n_classes"]),
            (Bag, ["slide_id", "features", "grid", "label", "patch_labels", "patient_id", "event", "time"]),
        ],
    )
    def test_signatures_begin_with(self, call: Any, expected: list[str]) -> None:
        assert signature(call)[: len(expected)] == expected


class TestSlide:
    def test_what_it_knows(self, slide: Slide, slide_path: Path) -> None:
        assert isinstance(slide, Slide)
        assert slide.dimensions == SIZE
        assert slide.mpp == pytest.approx(MPP, rel=1e-6)
        assert [tuple(size) for size in slide.level_dimensions] == [SIZE, (550, 375)]
        assert slide.level_downsamples == pytest.approx((1.0, 4.0))
        assert all(isinstance(factor, float) for factor in slide.level_downsamples)
        assert isinstance(slide.associated, Mapping)
        assert isinstance(slide.fingerprint, str)

    def test_fingerprint_is_of_the_content_not_of_the_place(
        self, slide: Slide, slide_path: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copy(slide_path, tmp_path / "elsewhere.tif")
        with open_slide(str(copy)) as other:
            assert other.fingerprint == slide.fingerprint

    def test_read_takes_level0_places_to_the_nearest_pixel_of_the_level(self, slide: Slide) -> None:
        image = painted(*SIZE)
        part = slide.read(310, 205, 40, 30)
        assert part.dtype == np.uint8
        assert np.array_equal(part, image[205:235, 310:350])
        coarse = image[::4, ::4]
        for x, column in ((401, 100), (402, 101), (403, 101), (404, 101)):  # 100.25, 100.5 (half up), 100.75, 101
            assert np.array_equal(slide.read(x, 400, 20, 10, level=1), coarse[100:110, column : column + 20]), (
                f"x = {x}"
            )

    def test_read_is_white_where_the_file_has_nothing(self, slide: Slide) -> None:
        image = painted(*SIZE)
        corner = slide.read(-10, -20, 30, 40)
        assert (corner[:20] == 255).all()
        assert (corner[:, :10] == 255).all()
        assert np.array_equal(corner[20:, 10:], image[:20, :20])
        end = slide.read(SIZE[0] - 5, SIZE[1] - 5, 20, 20)
        assert np.array_equal(end[:5, :5], image[-5:, -5:])
        assert (end[5:] == 255).all()
        assert (slide.read(10**6, 10**6, 8, 4) == 255).all()
        assert slide.read(0, 0, 0, 0).shape == (0, 0, 3)

    def test_levels_are_array_likes_of_a_factor_2_chain(self, slide: Slide) -> None:
        image = painted(*SIZE)
        assert [level.shape[:2] for level in slide.levels][:2] == [(1500, 2200), (750, 1100)]
        assert max(slide.levels[-1].shape) <= 1024
        for fine, coarse in zip(slide.levels[:-1], slide.levels[1:], strict=True):
            assert [round(a / b) for a, b in zip(fine.shape[:2], coarse.shape[:2], strict=True)] == [2, 2]
        for level in slide.levels:
            assert level.dtype == np.uint8
            assert level.ndim == len(level.shape) == 3
            assert level.size == math.prod(level.shape)
            assert len(level.chunks) == 3
        level = slide.levels[0]
        assert np.array_equal(level[:], image)
        assert np.array_equal(level[100:900:7, -5:, 1], image[100:900:7, -5:, 1])
        assert np.array_equal(level[..., 0][3], image[3, :, 0])
        assert np.array_equal(np.asarray(level), image)

    def test_the_pyramid_is_the_same_chain_in_dask(self, slide: Slide) -> None:
        pyramid = slide.pyramid()
        assert isinstance(pyramid, list)
        assert [array.shape for array in pyramid] == [level.shape for level in slide.levels]
        for array, level in zip(pyramid, slide.levels, strict=True):
            assert isinstance(array, dask.array.Array)
            assert array.dtype == np.uint8
            assert np.array_equal(array[10:20, 30:300].compute(), level[10:20, 30:300])

    def test_thumbnail(self, slide: Slide) -> None:
        small = slide.thumbnail(100)
        assert small.shape == (68, 100, 3)
        assert small.dtype == np.uint8

    def test_unknown_scale_is_none_until_a_person_says_it(self, tmp_path: Path) -> None:
        path = tmp_path / "plain.tif"
        tifffile.imwrite(path, painted(*SIZE)[:300, :400], resolution=(72, 72), resolutionunit="INCH")
        with open_slide(path) as found:
            assert found.mpp is None  # 352 µm per pixel is no scale of a slide
        with open_slide(path, mpp=0.5) as told:
            assert told.mpp == (0.5, 0.5)

    def test_context_manager_closes(self, slide_path: Path) -> None:
        with open_slide(slide_path) as opened:
            pass
        with pytest.raises(napari_mil.MilError):
            opened.read(0, 0, 4, 4)


class TestTissueAndPatches:
    def test_mask_and_grid(self, slide: Slide) -> None:
        mask = tissue_mask(slide)
        height, width = mask.array.shape
        assert mask.array.dtype == np.bool_
        assert (width, height) == (
            pytest.approx(SIZE[0] / mask.downsample, abs=2),
            pytest.approx(SIZE[1] / mask.downsample, abs=2),
        )
        assert mask.array.mean() == pytest.approx(1100 * 1400 / (SIZE[0] * SIZE[1]), rel=0.05)
        grid = tile(slide, tissue=mask)
        assert isinstance(grid, PatchGrid)
        assert len(grid) == 16  # each of the 4 x 4 holds some of the block
        assert grid.coords.dtype == np.int64
        # 112 µm: 448 px of 0.25, 373 px of 0.3
        assert grid.patch_px_level0 == grid.stride_px_level0 == (448, 373)
        assert grid.mpp == pytest.approx(MPP, rel=1e-6)

    def test_configs_are_positional(self, slide: Slide) -> None:
        from napari_mil.slide import TileConfig, TissueConfig

        mask = tissue_mask(slide, TissueConfig(method="manual", threshold=230))
        grid = tile(slide, TileConfig(target_mpp=1.0, patch_px=64, stride_px=32), mask)
        assert grid.patch_px_level0 == (256, 213)
        assert grid.stride_px_level0 == (128, 107)
        whole = {tuple(corner) for corner in tile(slide, TileConfig(target_mpp=1.0, patch_px=64, stride_px=32)).coords}
        assert {tuple(corner) for corner in grid.coords} < whole
        x, y = grid.coords.T
        assert (x + 256 > 300).all()
        assert (x < 1700).all()
        assert (y + 213 > 200).all()
        assert (y < 1300).all()

    def test_patch_grid_takes_one_number_or_two(self) -> None:
        grid = PatchGrid([[0, 0], [256, 0]], 256, 256, 0.25)
        assert grid.coords.tolist() == [[0, 0], [256, 0]]
        assert (grid.patch_px_level0, grid.stride_px_level0, grid.mpp) == ((256, 256), (256, 256), (0.25, 0.25))
        uneven = PatchGrid(np.array([[5, 7]], np.int32), (256, 200), (128, 100), (0.25, 0.32))
        assert uneven.patch_px_level0 == (256, 200)
        assert uneven.stride_px_level0 == (128, 100)
        assert len(uneven) == 1
        with pytest.raises(ValueError, match="whole"):
            PatchGrid([[0.5, 0]], 256, 256, 0.25)
        with pytest.raises(ValueError, match="coords"):
            PatchGrid([[0, 0, 0]], 256, 256, 0.25)


class TestExtract:
    def test_generator_of_frozen_reports_that_returns_the_file(self, slide: Slide, tmp_path: Path) -> None:
        grid = tile(slide, tissue=tissue_mask(slide))
        out = tmp_path / "set" / "P1.h5"
        job = extract(slide, grid, "texture", out, device="cpu")
        assert isinstance(job, types.GeneratorType)
        reports, path = drained(job)
        assert path == out
        assert all(isinstance(report, ExtractReport) for report in reports)
        assert frozen(reports[0])
        assert in_json(reports[-1])["slide_id"] == "P1"
        assert (reports[-1].done, reports[-1].total) == (len(grid), len(grid))
        assert sorted(p.name for p in out.parent.iterdir()) == ["P1.h5"]
        found = read_features(path)
        assert found.features.shape == (len(grid), 124)
        assert found.grid == grid
        assert found.attrs["slide_fingerprint"] == slide.fingerprint


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Ten tiny slides with features, made by the plain functions."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "slides").mkdir()
    rng = np.random.default_rng(0)
    for k in range(10):
        image = np.full((256, 256, 3), 240, np.uint8)
        image[:128] = rng.integers(60, 120 + 8 * k, (128, 256, 3))
        tifffile.imwrite(
            folder / "slides" / f"s{k}.tif", image, tile=(128, 128), photometric="rgb",
            resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
    made = Project.create(
        folder / "project", folder / "slides", tile={"patch_px": 64}, tissue={"method": "manual", "threshold": 230}
    )
    made.update_slides({f"s{k}": {"label": "positive" if k % 2 else "negative"} for k in range(10)})
    made.set_roles(dict(made.propose_split(seed=1)))
    for slide_id in made.slide_ids:
        with open_slide(made.slide_path(slide_id)) as opened:
            grid = tile(opened, made.config.tile, tissue_mask(opened, made.config.tissue))
            drained(extract(opened, grid, made.encoder, made.feature_path(slide_id), patch_px=64))
    return made


class TestProject:
    def test_create_and_open(self, project: Project) -> None:
        again = Project.open(str(project.folder))
        assert isinstance(again, Project)
        assert again.slide_ids == [f"s{k}" for k in range(10)]
        assert again.label_names == ["negative", "positive"]
        assert all(not Path(row.path).is_absolute() for row in again.slides)
        assert all(again.has_features(slide_id) for slide_id in again.slide_ids)
        assert len(again.bags("train")) + len(again.bags("validation")) + len(again.bags("test")) == 10
        assert isinstance(again.bags("train")[0], Bag)

    def test_experiment_is_a_generator_that_returns_a_table(self, project: Project, tmp_path: Path) -> None:
        import pandas as pd

        from napari_mil.study import Protocol

        methods = {name: Method.preset(name).with_settings({"training.epochs": 1}) for name in ("mean", "max")}
        job = experiment(project, methods, Protocol(repeats=1), executor=None, out=tmp_path / "experiment")
        reports, table = drained(job)
        assert reports
        assert all(frozen(report) and in_json(report) for report in reports)
        assert isinstance(table, pd.DataFrame)
        assert set(table["method"]) == {"mean", "max"}

    def test_job_status(self) -> None:
        status = JobStatus("a", "train")
        assert frozen(status)
        assert in_json(status)["phase"] == "queued"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ((), ()),
        (("demo",), ()),
        (("info",), ("--json",)),
        (("tissue",), ("--json", "--out")),
        (("extract",), ("--json", "--encoder", "--device", "--out")),
        (("import-features",), ("--json",)),
        (("train",), ("--json", "--method", "--set", "--seed", "--device", "--out", "--from")),
        (("predict",), ("--json", "--out")),
        (("experiment",), ("--json",)),
        (("lesions", "convert"), ("--json",)),
        (("doctor",), ("--json",)),
    ],
)
def test_commands_and_options(
    command: tuple[str, ...],
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from napari_mil.cli import main

    monkeypatch.setattr("sys.argv", ["napari-mil", *command, "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    said = capsys.readouterr().out
    assert all(option in said for option in options)
