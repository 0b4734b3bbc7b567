"""Whether what the package needs is installed, in versions that do, and loads."""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib import metadata

from ._finding import Finding, pip_install

# napari 0.9 works with these
_QT_BINDINGS = ("PyQt6", "PySide6")
_SHOWN = ("napari-mil", "napari", "torch", "torchvision", "numpy", "openslide-python", "tifffile", "shapely")


def check_packages() -> Finding:
    """Every requirement of the package's own metadata."""
    from packaging.requirements import Requirement

    versions = {name: version for name in _SHOWN if (version := _version(name)) is not None}
    wrong: dict[str, str] = {}
    for text in metadata.requires("napari-mil") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            wrong[f"{requirement.name}{requirement.specifier}"] = "missing"
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong[f"{requirement.name}{requirement.specifier}"] = version
    if wrong:
        found = "; ".join(f"{name}: found {version}" for name, version in wrong.items())
        return Finding("Packages", "problem", found, pip_install("--upgrade", *wrong), {"wrong": wrong, **versions})
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("Packages", "ok", found, details=dict(versions))


def check_slide_reader() -> Finding:
    """Whether the OpenSlide library itself can be loaded."""
    try:
        openslide = importlib.import_module("openslide")
        version = str(openslide.__library_version__)
    except (ImportError, OSError) as error:
        todo = pip_install("--force-reinstall", "openslide-python", "openslide-bin")
        return Finding("OpenSlide", "problem", f"cannot be loaded: {error}", todo)
    return Finding("OpenSlide", "ok", f"library {version}", details={"library": version})


def check_qt() -> Finding:
    """Which Qt binding napari will use."""
    there = [name for name in _QT_BINDINGS if importlib.util.find_spec(name) is not None]
    others = [name for name in ("PyQt5", "PySide2") if importlib.util.find_spec(name) is not None]
    wish = os.environ.get("QT_API", "")
    details = {"bindings": there, "QT_API": wish}
    if not there:
        found = f"none{' but ' + ', '.join(others) if others else ''}: there is no window without one"
        return Finding("Qt", "problem", found, pip_install("napari-mil[all]"), details)
    if wish and wish.lower() not in {name.lower() for name in there}:
        todo = f"Remove the environment variable QT_API, or set it to {there[0].lower()}."
        return Finding("Qt", "problem", f"{', '.join(there)}, but QT_API asks for {wish}", todo, details)
    return Finding("Qt", "ok", ", ".join(f"{name} {_version(name) or ''}".strip() for name in there), details=details)


def check_triangulation() -> Finding:
    """Without bermuda, 300 outlines take seconds instead of 0.1 s, and self-crossing ones raise."""
    version = _version("bermuda")
    if version is None or importlib.util.find_spec("bermuda") is None:
        todo = pip_install("bermuda")
        return Finding("Triangulation", "problem", "bermuda is missing: drawing many outlines is slow", todo)
    return Finding("Triangulation", "ok", f"bermuda {version}", details={"bermuda": version})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
