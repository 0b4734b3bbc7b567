"""Features of a slide, ResNet-50 up to its third stage: ours against the usual recipe.

    python benchmarks/extraction.py [--rounds 3] [--patches 192] [--slide FILE] [--no-memory] [--json]

The recipe is what most scripts do: OpenSlide and PIL read ahead by a worker for each processor (threads here, which
share pixels for nothing), ToTensor and Normalize, and torchvision's network eager in float32. Ours is
`napari_mil.extract`, patches of 448 px at 0.25 µm/px brought to 224. Weights are random: they change no time. Patches
per second of the whole machine, median (best) of interleaved rounds.

Goals, end to end on a CPU: ≥ 1.7 × the recipe in fp32; with AVX-512 BF16 or AMX ≥ 3.5 × in bf16 and ≥ 5.5 × with the
extra fast-cpu; ≥ 85 % of the slower of network alone and reader alone; at 100,000 patches ≤ 1.5 GiB beyond the model.
With an NVIDIA GPU ResNet-50 and a ViT-L are measured on it, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import psutil
import torch
import torchvision

from _timing import Report, Seconds, fast_bf16, interleaved, parser
from big_slide import big_slide
from napari_mil import PatchGrid, Slide, extract, open_slide, tile, tissue_mask
from napari_mil.features import get_encoder, in_precision

PATCH_PX, INPUT_PX, BATCH = 448, 224, 64
MANY = 100_000
SLIDE_PATCHES = 10_000  # of a slide, for slides per hour


class RecipeNetwork(torch.nn.Module):
    """torchvision's ResNet-50 cut after its third stage, mean over the map."""

    def __init__(self) -> None:
        super().__init__()
        whole = torchvision.models.resnet50(weights=None)
        parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        self.body = torch.nn.Sequential(*(getattr(whole, part) for part in parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


class Nothing:
    """An encoder that computes nothing: what is left is reading and writing."""

    name, note, revision, weights_sha256, transform = "nothing", "", "", "0" * 64, "none"
    dim, input_px, any_size, target_mpp, precision, device = 1024, INPUT_PX, False, 0.5, "fp32", "cpu"

    def encode(self, patches: np.ndarray) -> np.ndarray:
        return np.zeros((len(patches), self.dim), np.float32)


def tissue_grid(slide: Slide, count: int) -> PatchGrid:
    """So many neighbouring patches of tissue, from the middle of them all."""
    whole = tile(slide, tissue=tissue_mask(slide))
    first = max(0, (len(whole) - count) // 2)
    return whole.select(np.arange(first, min(first + count, len(whole))))


def run(slide: Slide, grid: PatchGrid, encoder: Any) -> None:
    """Ours from slide to file."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in extract(slide, grid, encoder, Path(folder) / "slide.h5"):
            pass


def recipe(path: Path, grid: PatchGrid, network: torch.nn.Module) -> np.ndarray:
    """The usual way from slide to features."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with openslide.OpenSlide(path) as slide, ThreadPoolExecutor(os.cpu_count()) as pool, torch.no_grad():

        def read(corner: np.ndarray) -> torch.Tensor:
            patch = slide.read_region((int(corner[0]), int(corner[1])), 0, (PATCH_PX, PATCH_PX)).convert("RGB")
            return transform(patch.resize((INPUT_PX, INPUT_PX)))

        patches = pool.map(read, grid.coords)
        batches = (list(islice(patches, BATCH)) for _ in range(0, len(grid), BATCH))
        return np.concatenate([network(torch.stack(batch)).numpy() for batch in batches])


def encoders() -> dict[str, Any]:
    """Ours by the name of the way."""
    ways = {"ours fp32": ("fp32", "torch"), "ours bf16": ("bf16", "torch")}
    if find_spec("openvino") is not None:
        ways |= {"ours fp32, fast-cpu": ("fp32", "openvino"), "ours bf16, fast-cpu": ("bf16", "openvino")}
    if not fast_bf16():
        ways = {name: way for name, way in ways.items() if way[0] == "fp32"}
    return {
        name: in_precision(get_encoder("resnet50", weights="random"), precision, backend)
        for name, (precision, backend) in ways.items()
    }


def on_cpu(report: Report, path: Path, patches: int, rounds: int) -> None:
    network = RecipeNetwork().eval()
    ours = encoders()
    with open_slide(path) as slide:
        grid = tissue_grid(slide, patches)
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, INPUT_PX, INPUT_PX, 3), np.uint8)
        tensor = torch.rand(BATCH, 3, INPUT_PX, INPUT_PX)
        alone: dict[str, Callable[[], object]] = {"usual recipe": lambda: network(tensor)}
        alone |= {name: lambda e=encoder: e.encode(pixels) for name, encoder in ours.items()}
        whole: dict[str, Callable[[], object]] = {"usual recipe": lambda: recipe(path, grid, network)}
        whole |= {name: lambda e=encoder: fresh(path, grid, e) for name, encoder in ours.items()}
        whole["reader alone"] = lambda: fresh(path, grid, Nothing())
        with torch.no_grad():
            for call in alone.values():
                call()
            networks = interleaved(alone, rounds)
        ends = interleaved(whole, rounds)
    for name, seconds in ends.items():
        figures = {"end to end": speed(len(grid), seconds)}
        if name in networks:
            figures = {"network alone": speed(BATCH, networks[name]), **figures}
        report.row("patches/s: median (best)", name, **figures)
    reader = len(grid) / ends["reader alone"].least
    for name in ours:
        ratio = ends["usual recipe"].least / ends[name].least
        share = len(grid) / ends[name].least / min(BATCH / networks[name].least, reader)
        report.row("patches/s: median (best)", name, **{"× recipe": round(ratio, 2), "of the limit": f"{share:.0%}"})
        wanted = {"ours fp32": 1.7, "ours bf16": 3.5, "ours bf16, fast-cpu": 5.5}.get(name)
        if wanted:
            report.goal(f"{name}, end to end against the usual recipe", ratio, least=wanted)
        report.goal(f"{name}, end to end against min(network alone, reader alone)", share, least=0.85)


def fresh(path: Path, grid: PatchGrid, encoder: Any) -> None:
    """With a slide just opened, so that no tile is at hand from the last round."""
    with open_slide(path) as slide:
        run(slide, grid, encoder)


def speed(patches: int, seconds: Seconds) -> str:
    return f"{patches / statistics.median(seconds.wall):.1f} ({patches / seconds.least:.1f})"


def memory(path: Path) -> dict[str, float]:
    """Extract 100,000 patches in this process; GiB at the peak beyond what it had before, and patches per second."""
    process = psutil.Process()
    with open_slide(path) as slide:
        width, height = slide.dimensions
        step = int(np.sqrt((width - PATCH_PX) * (height - PATCH_PX) / MANY))
        x, y = np.meshgrid(np.arange(0, width - PATCH_PX, step), np.arange(0, height - PATCH_PX, step))
        grid = PatchGrid(np.column_stack([x.ravel(), y.ravel()])[:MANY], PATCH_PX, step, slide.mpp)
        run(slide, grid.select(np.arange(BATCH)), Nothing())
        before = peak = process.memory_info().rss
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        seconds = interleaved({"all": lambda: run(slide, grid, Nothing())}, 1)["all"]
        done.set()
        watcher.join()
    return {"patches": len(grid), "gib": (peak - before) / 2**30, "per_second": len(grid) / seconds.least}


def on_gpu(report: Report, path: Path, rounds: int) -> None:
    """Patches per second and slides per hour, the reader at work on all processors."""
    with open_slide(path) as slide:
        grid = tissue_grid(slide, 20_000)
    pixels = np.random.default_rng(0).integers(0, 256, (512, INPUT_PX, INPUT_PX, 3), np.uint8)
    for name in ("resnet50", "uni"):
        encoder = in_precision(get_encoder(name, weights="random", device="cuda"))
        encoder.encode(pixels)
        ways = {
            "network alone": lambda e=encoder: e.encode(pixels),
            "end to end": lambda e=encoder: fresh(path, grid, e),
        }
        taken = interleaved(ways, rounds)
        found = len(grid) / taken["end to end"].least
        report.row(
            f"{torch.cuda.get_device_name()}",
            f"{name} ({encoder.precision})",
            **{
                "network alone, patches/s": round(len(pixels) / taken["network alone"].least),
                "end to end, patches/s": round(found),
                f"slides/hour ({SLIDE_PATCHES:,} patches)": round(found * 3600 / SLIDE_PATCHES),
            },
        )


def main() -> None:
    options_of = parser(__doc__, 3)
    options_of.add_argument("--patches", type=int, default=192)
    options_of.add_argument("--no-memory", action="store_true", help="leave out the 100,000 patches")
    options_of.add_argument("--only-memory", action="store_true", help=f"{MANY:,} patches and nothing else, as JSON")
    options = options_of.parse_args()
    path = options.slide or big_slide()
    if options.only_memory:
        print(json.dumps(memory(path)))
        return
    report = Report("extraction")
    on_cpu(report, path, options.patches, options.rounds)
    if not options.no_memory:
        command = [sys.executable, __file__, "--only-memory", "--slide", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        report.row("100,000 patches, reading and writing", "ours", **found)
        report.goal("100,000 patches: GiB beyond the model", found["gib"], most=1.5)
    if torch.cuda.is_available():
        on_gpu(report, path, options.rounds)
    else:
        report.note("No NVIDIA GPU is at hand: figures of one are missing.")
    report.print(options.json)


if __name__ == "__main__":
    main()
