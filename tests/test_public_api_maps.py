"""Outlines and maps as scripts rely on them: round trips, patch labels, and every pixel of a map on its patches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely

import napari_mil
from napari_mil import (
    Lesion,
    LesionSet,
    PatchGrid,
    attention_map,
    compare_maps,
    patch_labels,
    read_lesions,
    write_lesions,
)


def square(x: float, y: float, side: float) -> Any:
    return shapely.box(x, y, x + side, y + side)


class TestLesions:
    def lesions(self) -> LesionSet:
        ring = square(0, 0, 200).difference(square(50, 50, 100))
        many = shapely.MultiPolygon([square(300, 0, 20), square(340, 0.25, 20)])
        return LesionSet([Lesion(ring, label="Tumor", name="a"), Lesion(many, label="Stroma", color=(1, 2, 3))])

    @pytest.mark.parametrize("name", ["a.geojson", "b.geojson.gz", "c.xml"])
    def test_written_by_suffix_and_read_by_content(self, tmp_path: Path, name: str) -> None:
        before = self.lesions()
        write_lesions(before, tmp_path / name)
        shutil.copy(tmp_path / name, tmp_path / "no-suffix")
        self.same(before, read_lesions(tmp_path / name))
        self.same(before, read_lesions(str(tmp_path / "no-suffix")))

    @pytest.mark.parametrize("format", ["geojson", "asap", "aperio", "dsa"])
    def test_written_by_format(self, tmp_path: Path, format: str) -> None:
        before = self.lesions()
        write_lesions(before, tmp_path / "outlines.any", format=format)
        self.same(before, read_lesions(tmp_path / "outlines.any"))

    def same(self, before: LesionSet, after: LesionSet) -> None:
        assert isinstance(after, LesionSet)
        by_id = {lesion.id: lesion for lesion in after}
        for lesion in before:
            again = by_id.pop(lesion.id)
            assert isinstance(again, Lesion)
            assert again.geometry.hausdorff_distance(lesion.geometry) < 1e-6
            assert again.geometry.symmetric_difference(lesion.geometry).area < 1e-6
            assert (again.label, again.name) == (lesion.label, lesion.name)
        assert not by_id

    def test_patch_labels(self) -> None:
        from napari_mil.lesion import ClassRoles

        grid = PatchGrid([[x, 0] for x in (0, 100, 200, 300, 400, 500)], 100, 100, 0.5)
        outlines = LesionSet(
            [
                Lesion(shapely.box(0, 0, 5, 100)),  # 5 %: not above
                Lesion(shapely.box(100, 0, 105.01, 100)),
                Lesion(shapely.box(200, 0, 300, 100).difference(shapely.box(203, 0, 300, 100))),
                Lesion(shapely.box(203, 0, 206, 100)),  # 3 % and 3 %: together above
                Lesion(shapely.box(300, 0, 400, 100)),
                Lesion(shapely.box(300, 0, 397, 100), label="Exclusion"),
                Lesion(shapely.box(400, 0, 500, 100), label="Normal"),
                Lesion(shapely.box(500, 0, 600, 100), label="Ignore"),
            ]
        )
        labels = patch_labels(outlines, grid)
        assert labels.dtype == np.int8
        assert labels.tolist() == [0, 1, 1, 0, 0, -1]
        assert patch_labels(outlines, grid, partial=True).tolist() == [-1, 1, 1, -1, 0, -1]
        # as published: each polygon alone, whole pixels, exclusions are lesion
        assert patch_labels(outlines, grid, rule="released").tolist() == [0, 0, 0, 1, 0, -1]
        assert patch_labels(outlines, grid, min_overlap=0.5).tolist() == [0, 0, 0, 0, 0, -1]
        assert patch_labels(outlines, grid, classes=ClassRoles(lesion=("Normal",), normal=())).tolist()[4] == 1
        assert patch_labels(LesionSet(), grid, partial=True).tolist() == [-1] * 6


def brute_force(grid: PatchGrid, scores: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """World centre (y, x) of every stride cell from the grid's corner, and the mean over patches that cover it."""
    patch, stride = np.array(grid.patch_px_level0), np.array(grid.stride_px_level0)
    origin = grid.coords.min(axis=0)
    shape = np.ceil((grid.coords.max(axis=0) + patch - origin) / stride).astype(int)
    mean = np.full(shape[::-1], np.nan)
    centre = np.empty((*shape[::-1], 2))
    for row in range(shape[1]):
        for column in range(shape[0]):
            middle = origin + (np.array([column, row]) + 0.5) * stride
            covers = ((grid.coords <= middle) & (middle < grid.coords + patch)).all(axis=1)
            mean[row, column] = scores[covers].mean() if covers.any() else np.nan
            centre[row, column] = ((middle - 0.5) * grid.mpp)[::-1]
    return centre, mean


class TestMaps:
    @pytest.mark.parametrize(
        ("patch", "stride", "mpp"),
        [
            (224, 224, 0.5),  # 20x
            (448, 448, 0.25),  # 40x
            (896, 896, 0.1262),  # a level whose downsample is 3.9998 or 4.0003: whole level-0 pixels all the same
            (895, 895, 0.499),
            (512, 128, 0.25),  # overlap
            (500, 150, 0.2277),  # stride that does not divide the patch
            (100, 256, 0.25),  # gaps
            ((448, 373), (224, 187), (0.25, 0.3)),  # pixels that are not square
        ],
    )
    def test_every_pixel_lies_on_its_cell_to_a_millionth_of_a_micrometre(
        self, patch: Any, stride: Any, mpp: Any
    ) -> None:
        rng = np.random.default_rng(1)
        step = np.broadcast_to(stride, 2)
        lattice = np.stack(np.meshgrid(np.arange(9), np.arange(7)), axis=-1).reshape(-1, 2)
        keep = rng.random(len(lattice)) < 0.7
        grid = PatchGrid(lattice[keep] * step + (1313, 707), patch, stride, mpp)
        scores = rng.normal(size=len(grid))
        amap = attention_map(grid, scores)
        centre, mean = brute_force(grid, scores)
        rows, columns = amap.data.shape
        assert amap.data.dtype == np.float32
        assert amap.normalisation == "raw"
        at = np.array(amap.translate) + np.stack(np.mgrid[:rows, :columns], axis=-1) * np.array(amap.scale)
        assert np.abs(at - centre[:rows, :columns]).max() < 1e-6
        if np.all(np.broadcast_to(patch, 2) >= step):
            np.testing.assert_allclose(amap.data, mean[:rows, :columns], atol=1e-6)
            assert np.isnan(mean[rows:]).all()
            assert np.isnan(mean[:, columns:]).all()
        else:  # a patch always shows in its own first cell
            first = (grid.coords - grid.coords.min(axis=0)) // step
            np.testing.assert_allclose(amap.data[first[:, 1], first[:, 0]], scores, atol=1e-6)

    def test_level0_pixel_0_has_its_centre_at_0(self) -> None:
        one = attention_map(PatchGrid([[0, 0]], 1, 1, 0.25), [1.0])
        assert (one.scale, one.translate, one.data.tolist()) == ((0.25, 0.25), (0.0, 0.0), [[1.0]])

    def test_several_lattices_keep_every_patch_within_half_a_cell(self) -> None:
        # CLAM starts anew at each contour, and its steps are cut to whole pixels
        contours = [np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1).reshape(-1, 2) * 1023 + offset
                    for offset in ((0, 0), (7001, 333), (2222, 9091))]  # fmt: skip
        grid = PatchGrid(np.concatenate(contours), 1024, 1023, (0.2263, 0.2263))
        amap = attention_map(grid, np.arange(len(grid)))
        cell = np.array(amap.cell_px_level0)
        off = (grid.coords - amap.origin_px_level0 + cell / 2) % cell - cell / 2
        assert np.abs(off).max() <= cell.max() / 2
        assert np.abs(off).max() * 0.2263 <= amap.bound_um + 1e-9
        assert cell.max() <= 1023
        assert amap.scale == pytest.approx(tuple(cell[::-1] * 0.2263), abs=1e-9)

    def test_normalisations(self) -> None:
        grid = PatchGrid([[i * 10, 0] for i in range(4)], 10, 10, 1.0)
        scores = np.array([0.0, 3.0, 1.0, 2.0])
        softmax = attention_map(grid, scores, normalisation="softmax")
        assert softmax.data[0] == pytest.approx(np.exp(scores) / np.exp(scores).sum(), abs=1e-6)
        percentile = attention_map(grid, scores, normalisation="percentile")
        assert percentile.data[0].argsort().tolist() == [0, 2, 3, 1]
        assert percentile.data.max() == 100
        assert (softmax.normalisation, percentile.normalisation) == ("softmax", "percentile")

    def test_foreign_scores_are_refused(self) -> None:
        with pytest.raises(napari_mil.MilError, match="3"):
            attention_map(PatchGrid([[0, 0], [5, 0], [9, 0]], 4, 4, 1), np.zeros(2))

    def test_compare_maps(self) -> None:
        grid = PatchGrid([[i % 8 * 256, i // 8 * 256] for i in range(40)], 256, 256, 0.5)
        scores = np.arange(40)[::-1].astype(float)
        maps = {"a": attention_map(grid, scores), "b": attention_map(grid, -scores)}
        outlines = LesionSet([Lesion(shapely.box(0, 0, 2048, 256))])  # the first row of patches
        table = compare_maps(maps, outlines, grid)
        pair = table[table["against"] != "lesions"].iloc[0]
        assert pair["spearman"] == pytest.approx(-1)
        lesions = table[table["against"] == "lesions"].set_index("map")
        assert lesions.loc["a", "auroc"] == pytest.approx(1)
        assert lesions.loc["b", "auroc"] == pytest.approx(0)
        assert len(compare_maps(maps)) == 1
