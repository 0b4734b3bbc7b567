"""Python, memory, disks, caches and weights."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from ._finding import Finding

_GB = 1e9


def check_python() -> Finding:
    """Python and the operating system."""
    version = platform.python_version()
    details = {"python": version, "executable": sys.executable, "system": platform.platform()}
    found = f"Python {version} on {platform.system()} {platform.release()} ({platform.machine()})"
    if sys.maxsize < 2**32:
        return Finding("Python", "problem", f"{found}, 32 bit", "Install a 64-bit Python 3.11 or newer.", details)
    return Finding("Python", "ok", found, details=details)


def check_memory() -> Finding:
    """Memory and cores."""
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    details = {"total_gb": memory.total / _GB, "available_gb": memory.available / _GB, "cores": cores}
    found = f"{memory.total / _GB:.0f} GB, {memory.available / _GB:.1f} GB of it free; {cores} cores"
    if memory.available < 1.5 * _GB:
        return Finding("Memory", "advice", found, "Close other programs before training.", details)
    if memory.total < 7.5 * _GB:
        todo = "Enough to look and draw; for training on slides of more than 50,000 patches 8 GB are better."
        return Finding("Memory", "advice", found, todo, details)
    return Finding("Memory", "ok", found, details=details)


def check_disk(folder: Path) -> Finding:
    """Room where features are written: about 2 kB a patch."""
    usage = shutil.disk_usage(_existing(folder))
    free = usage.free / _GB
    details = {"folder": str(folder), "free_gb": free, "total_gb": usage.total / _GB}
    found = f"{free:.1f} GB free at {folder}"
    if free < 1:
        return Finding("Disk", "problem", found, "Free at least 1 GB, or put the project on another disk.", details)
    if free < 10:
        todo = "Features take about 2 kB a patch, 0.2 GB for a slide of 100,000 patches: see that it is enough."
        return Finding("Disk", "advice", found, todo, details)
    return Finding("Disk", "ok", found, details=details)


def check_caches() -> Finding:
    """What lies in the user's cache, and whether it can be written."""
    from napari_mil.features.weights import cache_folder

    folder = cache_folder()
    size = _size(folder)
    details = {"folder": str(folder), "bytes": size}
    found = f"{size / 1e6:.0f} MB in {folder}" if folder.exists() else f"nothing yet in {folder}"
    if not _writable(folder):
        todo = "Make the folder writable, or name another one in the environment variable NAPARI_MIL_CACHE."
        return Finding("Caches", "problem", f"{folder} cannot be written", todo, details)
    if size > 20 * _GB:
        return Finding("Caches", "advice", found, "It may be deleted whenever napari-mil is closed.", details)
    return Finding("Caches", "ok", found, details=details)


def check_weights() -> Finding:
    """Which encoders are ready to be used offline."""
    from napari_mil.features.encoder import list_encoders
    from napari_mil.features.weights import weights_of

    # published ones need a licence before they are offered to be downloaded: only those that are here are told of
    encoders = [info for info in list_encoders() if not (info.url and info.needs_download)]
    ready = [info.name for info in encoders if not info.needs_download]
    missing = [info.name for info in encoders if info.needs_download]
    details = {"ready": ready, "to_download": missing}
    found = "ready: " + (", ".join(ready) or "none") + (f"; to download: {', '.join(missing)}" if missing else "")
    if not missing:
        return Finding("Encoder weights", "ok", found, details=details)
    sources = [source for source in map(weights_of, missing) if source is not None]
    megabytes = "; ".join(f"{source.encoder} {source.megabytes:.0f} MB" for source in sources)
    todo = f"They are downloaded at first use ({megabytes}); without internet use “texture”, or give a local file."
    return Finding("Encoder weights", "advice", found, todo, details)


def check_long_paths() -> Finding | None:
    """Windows refuses paths past 260 characters unless told otherwise."""
    if sys.platform != "win32":
        return None
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            enabled = winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1
    except OSError:
        enabled = False
    if enabled:
        return Finding("Long paths", "ok", "Windows allows them")
    todo = "Keep projects in short folders, or let an administrator set LongPathsEnabled to 1."
    return Finding("Long paths", "advice", "Windows refuses paths past 260 characters", todo)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            total += os.path.getsize(path) if os.path.exists(path) else 0
    return total
