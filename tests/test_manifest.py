"""The plugin as napari sees it: manifest, what it points to, settings, and the wheel that carries it."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-mil")


def test_the_manifest_is_valid_and_its_own(manifest: PluginManifest) -> None:
    assert manifest.name == "napari-mil"
    assert manifest.package_version == metadata.version("napari-mil")
    at_root, packaged = ROOT / "napari.yaml", ROOT / "src" / "napari_mil" / "napari.yaml"
    if at_root.exists():  # a link; where links are not to be had it is a file with the way to the real one
        assert at_root.read_text() in (packaged.read_text(), "src/napari_mil/napari.yaml")


def test_every_command_exists(manifest: PluginManifest) -> None:
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not there yet")
        assert callable(getattr(importlib.import_module(module), name)), command.python_name


def test_every_contribution_has_its_command(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    known = {command.id for command in contributions.commands}
    used = [
        *contributions.readers,
        *contributions.writers,
        *contributions.widgets,
        *contributions.sample_data,
        *(item for items in contributions.menus.values() for item in items),
    ]
    assert {item.command for item in used} == known
    from napari._app_model.constants._menus import is_menu_contributable

    assert all(is_menu_contributable(menu) for menu in contributions.menus)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("a.svs", True),
        ("CMU-1 [sub].ndpi", True),
        ("a.ome.tif", True),
        ("outlines.geojson", False),
        ("photo.png", False),
        ("notes.json", False),
    ],
)
def test_the_reader_claims_slides_only(manifest: PluginManifest, name: str, ours: bool) -> None:
    patterns = [p for reader in manifest.contributions.readers for p in reader.filename_patterns]
    assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns) == ours


def test_settings_are_kept_by_napari_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import napari.settings

    from napari_mil.viewer.settings import Settings, read_settings

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    kept = napari.settings.get_plugin_settings("napari-mil", path_dir=tmp_path)
    assert read_settings() == Settings()  # the defaults of napari.yaml are those of the class
    kept.slides.tile_cache_mb = 64
    kept.lesions.autosave_seconds = 1.0
    kept.computing.device = "cpu"
    assert read_settings() == Settings(64, 1.0, "cpu")
    with pytest.raises(ValueError, match="abacus"):
        kept.computing.device = "abacus"
    with pytest.raises(ValueError, match=r"less than or equal to 5"):
        kept.lesions.autosave_seconds = 60.0


def test_without_a_manifest_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    import napari.settings

    from napari_mil.viewer.settings import Settings, read_settings

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {"another-plugin": object()})
    assert read_settings() == Settings()


def test_every_setting_acts(manifest: PluginManifest) -> None:
    """A setting that nothing reads is a lie in the preferences."""
    from dataclasses import fields

    from napari_mil.viewer.settings import Settings

    rooms = [path for path in (ROOT / "src").rglob("*.py") if path.name != "settings.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in rooms)
    declared = {
        key for configuration in manifest.contributions.configurations.values() for key in configuration.properties
    }
    assert declared == {field.name for field in fields(Settings)}
    assert "settings.autosave_seconds" in source
    assert "settings.device" in source


def test_the_tile_cache_takes_the_size_that_was_set() -> None:
    from napari_mil.slide import tile_cache
    from napari_mil.slide.cache import set_cache_limit
    from napari_mil.viewer.settings import Settings, apply_cache_limit

    try:
        apply_cache_limit(Settings(tile_cache_mb=700))
        assert tile_cache().limit_bytes == 700 * 2**20
        apply_cache_limit(Settings(tile_cache_mb=7))  # not all that a window shows has its place there
        assert tile_cache().limit_bytes == 256 * 2**20
    finally:
        set_cache_limit(None)


def test_a_changed_cache_size_acts_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import napari.settings

    from napari_mil.slide import tile_cache
    from napari_mil.slide.cache import default_limit, set_cache_limit
    from napari_mil.viewer.settings import follow_cache_limit

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    kept = napari.settings.get_plugin_settings("napari-mil", path_dir=tmp_path)
    kept.slides.tile_cache_mb = 640
    try:
        end = follow_cache_limit()
        assert tile_cache().limit_bytes == 640 * 2**20
        kept.slides.tile_cache_mb = 500
        assert tile_cache().limit_bytes == 500 * 2**20
        kept.slides.tile_cache_mb = 0
        assert tile_cache().limit_bytes == default_limit()
        end()
        kept.slides.tile_cache_mb = 700
        assert tile_cache().limit_bytes == default_limit()
    finally:
        set_cache_limit(None)


def test_the_wheel_and_the_source_archive_carry_the_manifest(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {"napari_mil/napari.yaml", "napari_mil/py.typed", "napari_mil/sample/cohort.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if not name.startswith("napari_mil")]

    import tarfile

    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
    assert not [m.name for m in members if m.issym() or m.islnk()]  # Windows cannot make them without rights
    assert any(m.name.endswith("src/napari_mil/napari.yaml") for m in members)
