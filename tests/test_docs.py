"""The documentation builds without a warning, shows what exists, and its examples run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"


def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
        + [str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html" / "tutorial.html").is_file()


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_pictures_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'<img[^>]+src="([^"]+)"', text)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_every_preset_and_every_page_is_explained() -> None:
    from napari_mil import Method

    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert not [name for name in Method.presets() if f"`{name}`" not in methods]
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(index.split(":hidden:")[1].split("```")[0].split())
    assert listed == {page.stem for page in PAGES} - {"index"}


def test_every_command_is_documented() -> None:
    """docs/cli.md names the commands that exist, and no others."""
    from typer.main import get_command

    from napari_mil import cli
    from napari_mil.cli import _encoders, _projects, _slides, _training, _window  # noqa: F401 - they register their commands

    commands = set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `napari-mil ([\w-]+)", text, flags=re.MULTILINE)) == commands


def test_every_published_encoder_is_in_the_table() -> None:
    from napari_mil.features.published import PUBLISHED

    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    lines = {found[1]: found[0] for found in re.finditer(r"^\| `([\w.-]+)` \|.*$", text, flags=re.MULTILINE)}
    for about in PUBLISHED.values():
        cells = [cell.strip() for cell in lines[about.name].split("|")[1:-1]]
        scale = "any" if about.mpp is None else f"{about.patch_px} px, {about.mpp} µm/px"
        assert cells[2:4] == [str(about.dim), scale]
        assert cells[5] == f"{about.millions:.0f} M"
        assert f"({about.url})" in cells[7]
        assert about.gated == cells[7].endswith("on request")


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in (README, *PAGES) if python_blocks(p)], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, sample_project: Path) -> None:
    """Python of a page runs from top to bottom, beside a project called my-project."""
    shutil.copytree(sample_project.parent, tmp_path / "cohort")
    (tmp_path / "cohort" / "project").rename(tmp_path / "cohort" / "my-project")
    script = tmp_path / "cohort" / "page.py"  # a file: the examples start child processes, and these read it again
    script.write_text("\n".join(python_blocks(page)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path / "cohort",
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def sample_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from napari_mil.sample import create_sample

    return create_sample(tmp_path_factory.mktemp("sample"), n_slides=8, seed=0, size=(1536, 1024))
