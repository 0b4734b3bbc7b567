"""OpenGL, napari's settings, and the graphics card that computes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ._finding import Finding, ProbeError, no_window, pip_install, probe

_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software", "gdi generic", "swiftshader", "basic render")
# napari's slicing, and the tiles of our view, need textures of at least this side
_LEAST_TEXTURE = 4096

_GL_PROBE = """
import json
from qtpy import QtGui
app = QtGui.QGuiApplication([])
surface = QtGui.QOffscreenSurface()
surface.create()
context = QtGui.QOpenGLContext()
answer = {"platform": app.platformName(), "ok": bool(context.create() and context.makeCurrent(surface))}
if answer["ok"]:
    from OpenGL import GL
    for name in ("VENDOR", "RENDERER", "VERSION"):
        answer[name.lower()] = (GL.glGetString(getattr(GL, "GL_" + name)) or b"").decode()
    answer["max_texture"] = int(GL.glGetIntegerv(GL.GL_MAX_TEXTURE_SIZE))
print(json.dumps(answer))
"""
_NAPARI_PROBE = """
import json
from napari.settings import get_settings
settings = get_settings().experimental
print(json.dumps({"async": bool(settings.async_), "triangulation": str(settings.triangulation_backend.value
    if hasattr(settings.triangulation_backend, "value") else settings.triangulation_backend)}))
"""
_TORCH_PROBE = """
import json, time
start = time.perf_counter()
import torch
card = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "available": card, "name": torch.cuda.get_device_name(0) if card else None,
    "mps": torch.backends.mps.is_available(), "seconds": time.perf_counter() - start}))
"""


def check_opengl(timeout: float) -> Finding:
    """Whether a window can be drawn at all, and by what."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        todo = "Commands work. For the window, log in at a desktop, forward X11 or VNC, or use xvfb-run."
        return Finding("OpenGL", "advice", "there is no display (DISPLAY is not set), so it was not tried", todo)
    try:
        facts = probe(_GL_PROBE, timeout)
    except ProbeError as error:
        return Finding("OpenGL", "problem", f"no window can be opened: {error}", _gl_remedy())
    return judge_opengl(facts)


def judge_opengl(facts: dict[str, Any]) -> Finding:
    """What the answer of an OpenGL probe means."""
    if not facts.get("ok"):
        return Finding("OpenGL", "problem", "no OpenGL context could be made", _gl_remedy(), facts)
    found = f"{facts['renderer']} ({facts['vendor']}), OpenGL {facts['version']}"
    if facts["max_texture"] < _LEAST_TEXTURE:
        found += f", textures of {facts['max_texture']} px only"
        return Finding("OpenGL", "problem", found, "Update the graphics driver.", facts)
    if any(word in f"{facts['renderer']} {facts['vendor']}".lower() for word in _SOFTWARE):
        todo = (
            "The processor draws, since no graphics card is used: zooming and panning are slower. "
            "Install the card's driver; in a remote session use one that passes OpenGL on (VirtualGL, NICE DCV)."
        )
        return Finding("OpenGL", "advice", f"{found}: in software", todo, facts)
    return Finding("OpenGL", "ok", found, details=facts)


def _gl_remedy() -> str:
    if sys.platform.startswith("linux"):
        return (
            "Install the graphics driver and Qt's system libraries: sudo apt-get install libgl1 libegl1 libxcb-cursor0 "
            "libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 "
            "libxcb-shape0 libdbus-1-3 libfontconfig1"
        )
    return "Update the graphics driver; a remote desktop may need one that passes OpenGL on."


def check_napari_settings(timeout: float) -> list[Finding]:
    """Asynchronous slicing, and what napari is told to triangulate with."""
    try:
        facts = probe(_NAPARI_PROBE, timeout)
    except ProbeError as error:
        todo = "Reset them with: napari --reset"
        return [Finding("napari settings", "problem", f"cannot be read: {error}", todo)]
    return judge_napari(facts)


def judge_napari(facts: dict[str, Any]) -> list[Finding]:
    """What napari's settings mean for us."""
    findings = []
    if facts["async"]:
        findings.append(Finding("Asynchronous slicing", "ok", "on", details=facts))
    else:
        todo = "Smoother on slow disks when on: napari, Preferences, Experimental, “Render Images Asynchronously”."
        findings.append(Finding("Asynchronous slicing", "advice", "off", todo, facts))
    backend = facts["triangulation"]
    if "bermuda" not in backend.lower() and "fastest" not in backend.lower():
        todo = "napari, Preferences, Experimental, triangulation backend: choose “Fastest available” or “bermuda”."
        findings.append(Finding("Triangulation setting", "advice", backend, todo, facts))
    return findings


def check_torch(timeout: float) -> Finding:
    """Whether torch loads, and whether it uses the card that is there."""
    try:
        facts = probe(_TORCH_PROBE, timeout)
    except ProbeError as error:
        todo = pip_install("--force-reinstall", "torch", "torchvision")
        return Finding("Computing device", "problem", f"torch cannot be loaded: {error}", todo)
    return judge_torch(facts, find_nvidia())


def judge_torch(facts: dict[str, Any], card: dict[str, Any] | None) -> Finding:
    """What torch and the card (None: no NVIDIA card) mean together."""
    name, details = "Computing device", {"torch": facts, "nvidia": card}
    version = f"torch {facts['version']}"
    if facts["available"]:
        return Finding(name, "ok", f"{facts['name']}, {version}", details=details)
    if facts["mps"]:
        return Finding(name, "ok", f"Apple graphics (mps), {version}", details=details)
    if card is None:
        return Finding(name, "ok", f"processor; no NVIDIA card found; {version}", details=details)
    found = f"{card['name']} is there, but {version} computes on the processor only"
    if facts["cuda"] is None:
        return Finding(name, "problem", found, cuda_command(card["cuda"]), details)
    todo = (
        f"Update the NVIDIA driver: torch was built for CUDA {facts['cuda']}, the driver offers {card['cuda'] or '?'}."
    )
    return Finding(name, "problem", found, todo, details)


def cuda_command(driver_cuda: str | None) -> str:
    """The command that puts a torch with CUDA in the place of one without."""
    # wheels at download.pytorch.org/whl, newest first: the driver must offer at least that CUDA
    wheels = (((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 6), "cu126"))
    offered = tuple(int(part) for part in driver_cuda.split(".")[:2]) if driver_cuda else (12, 8)
    wheel = next((name for least, name in wheels if offered >= least), None)
    if wheel is None:
        return f"Update the NVIDIA driver first (it offers CUDA {driver_cuda}, 12.6 is the least), then run this again."
    index = f"https://download.pytorch.org/whl/{wheel}"
    return pip_install("--force-reinstall", "torch", "torchvision", "--index-url", index)


def find_nvidia() -> dict[str, Any] | None:
    """Name, driver and CUDA version of the first NVIDIA card, or None."""
    tool = shutil.which("nvidia-smi")
    if tool is None and sys.platform == "win32":
        beside = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvidia-smi.exe"
        tool = str(beside) if beside.is_file() else None
    if tool is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return parse_nvidia(_output(tool), _output(tool, "-L"))
    if Path("/proc/driver/nvidia/version").exists():
        return {"name": "An NVIDIA card", "driver": None, "cuda": None}
    return None


def _output(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=15, check=True, creationflags=no_window()
    )
    return done.stdout


def parse_nvidia(table: str, listing: str) -> dict[str, Any] | None:
    """What nvidia-smi's table and its ``-L`` listing say; None if there is no card."""
    name = re.search(r"^GPU \d+: (.+?)(?: \(UUID|$)", listing, re.MULTILINE)
    if name is None:
        return None
    driver, cuda = re.search(r"Driver Version: (\S+)", table), re.search(r"CUDA Version: (\d+\.\d+)", table)
    return {
        "name": name.group(1),
        "driver": driver.group(1) if driver else None,
        "cuda": cuda.group(1) if cuda else None,
    }
