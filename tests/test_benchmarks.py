"""The slide that the benchmarks make, and how they time and judge."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = script("big_slide").big_slide(tmp_path_factory.mktemp("big") / "slide.tif", (3501, 2602))
    return path


def test_openslide_opens_it_with_its_levels_and_scale(made: Path) -> None:
    import openslide
    import tifffile

    with openslide.OpenSlide(made) as slide:
        assert slide.level_dimensions == ((3501, 2602), (875, 650))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    with tifffile.TiffFile(made) as tif:
        page = tif.pages[0]
        assert (page.tilewidth, page.tilelength) == (256, 256)
        assert page.tags["YCbCrSubSampling"].value == (2, 2)
        sizes = np.array(page.databytecounts)
    assert 12_000 < np.percentile(sizes, 90) < 28_000, "a tile of tissue: 7:1 to 16:1"
    assert sizes.min() < 9_000, "a tile of glass is small"


def test_its_levels_show_the_same_place(made: Path) -> None:
    import openslide

    with openslide.OpenSlide(made) as slide:
        coarse = np.asarray(slide.read_region((720, 520), 1, (100, 80)).convert("RGB")).astype(int)

        def mean_of(x: int, y: int) -> np.ndarray:
            fine = slide.read_region((x, y), 0, (400, 320)).convert("RGB").reduce(4)
            return np.asarray(fine).astype(int)

        there = np.abs(coarse - mean_of(720, 520)).mean()
        beside = [np.abs(coarse - mean_of(720 + dx, 520 + dy)).mean() for dx, dy in ((4, 0), (-4, 0), (0, 4), (0, -4))]
    assert there < 8
    assert there < 0.75 * min(beside)


def test_another_seed_is_another_slide_and_the_same_one_is_not_made_anew(made: Path, tmp_path: Path) -> None:
    big = script("big_slide")
    age = made.stat().st_mtime_ns
    assert big.big_slide(made, (3501, 2602)) == made
    assert made.stat().st_mtime_ns == age
    first, second = (big.big_slide(tmp_path / f"{s}.tif", (1024, 768), step=2, seed=s) for s in (1, 2))
    assert first.read_bytes() != second.read_bytes()
    with Image.open(first) as image:
        assert image.size == (1024, 768)


def test_ways_are_run_in_turn_and_goals_are_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = script("_timing")
    done: list[str] = []
    clock = iter(np.cumsum([0, 2, 0, 1, 0, 3, 0, 5]).tolist())  # seconds: a 2, b 1, then b 3, a 5
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    ways = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    taken = timing.interleaved(ways, 2, {"b": lambda: done.append("open b")})
    assert done == ["a", "open b", "b", "open b", "b", "a"], "whoever was first is not first again"
    assert (taken["a"].wall, taken["b"].wall) == ([2, 5], [1, 3])
    assert (taken["a"].least, taken["a"].median) == (2, 3.5)

    report = timing.Report("reading")
    report.row("table", "ours", speed=12.345, size=1234.5)
    report.row("table", "ours", more="yes")
    report.goal("faster", 2.9, least=3)
    report.goal("soon", 20.0, most=20)
    report.print(True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["tables"] == {"table": {"ours": {"speed": 12.3, "size": 1234, "more": "yes"}}}
    assert [goal["reached"] for goal in facts["goals"]] == [False, True]
    report.print(False)
    lines = capsys.readouterr().out.splitlines()
    assert "not reached  faster: 2.9 (≥ 3)" in lines
    assert "reached      soon: 20.0 (≤ 20)" in lines


class TestMilDatasets:
    @pytest.fixture(scope="class")
    def table(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Twelve bags of three rows, told apart by their first number; the last number never changes."""
        rng = np.random.default_rng(0)
        rows = [[k % 2, k + 1, *(rng.normal(size=3) + 9 * (k % 2)), 7.0] for k in range(12) for _ in range(3)]
        path = tmp_path_factory.mktemp("mil") / "musk1.csv"
        np.savetxt(path, rows, delimiter=",")
        return path

    def test_bags_and_folds(self, table: Path) -> None:
        mil = script("mil_datasets")
        bags = mil.read_bags(table)
        assert [bag.label for bag in bags] == [0, 1] * 6
        assert bags[0].features.shape == (3, 4)
        folds = mil.folds([bag.label for bag in bags], 3, seed=1)
        assert sorted(k for fold in folds for k in fold) == list(range(12))
        assert all(sum(bags[k].label for k in fold) == 2 for fold in folds)

    def test_scaled_by_the_training_folds_alone(self, table: Path) -> None:
        mil = script("mil_datasets")
        bags = mil.read_bags(table)
        train = np.concatenate([bag.features for bag in mil.standardised(bags[:8], bags[:8])])
        np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(train[:, :3].std(axis=0), 1, atol=1e-5)
        test = np.concatenate([bag.features for bag in mil.standardised(bags[8:], bags[:8])])
        assert np.abs(test.mean(axis=0)[:3]).max() > 1e-3
        assert np.isfinite(test).all()

    def test_it_learns_them(self, table: Path) -> None:
        mil = script("mil_datasets")
        settings = {"training.epochs": 40, "training.learning_rate": 0.05}
        assert mil.accuracy(mil.read_bags(table), [0, 1, 2, 3], "mean", "musk1", settings, 0) == 1.0


def test_cost_of_mining_prints_its_figures() -> None:
    found = subprocess.run(
        [sys.executable, SCRIPTS / "mhim_cost.py", "--quick", "--json", "--threads", "1"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures = json.loads(found.stdout)
    assert figures["mhim_abmil_over_abmil"] > 0
    assert figures["mhim_transmil_over_transmil"] > 0
    assert figures["raw"]["mhim_abmil_c16"]["plain_s_least"] > 0


@pytest.mark.parametrize(
    ("name", "options", "tables"),
    [
        ("memory", [], 3),
        ("cost_table", [], 1),
        ("precision", ["--presets", "mhim_abmil_c16"], 2),
        ("epoch_from_disk", [], 1),
        ("seeds_on_gpu", ["--device", "cpu", "--runs", "2"], 1),
    ],
)
def test_benchmarks_of_training_run(
    name: str, options: list[str], tables: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    module = script(name)
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--rounds", "1", "--json", *options])
    module.main()
    facts = json.loads(capsys.readouterr().out)
    assert facts["benchmark"] == name
    assert len(facts["tables"]) == tables
    figures = [value for table in facts["tables"].values() for row in table.values() for value in row.values()]
    numbers = [value for value in figures if isinstance(value, int | float)]
    assert numbers
    assert all(np.isfinite(value) and value >= 0 for value in numbers)


def test_no_graphics_card_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    module = script("seeds_on_gpu")
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["seeds_on_gpu"])
    module.main()
    assert "There is no graphics card here" in capsys.readouterr().out
