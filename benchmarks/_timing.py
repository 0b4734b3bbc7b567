"""What the benchmarks share: interleaved rounds, medians and minima, tables, goals.

Other work on the machine disturbs times, so all ways of doing a thing are run in turn, round after round, in one
process, and ratios are taken between their least times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Seconds:
    """What one way took in each round: on the clock, and of all processors."""

    wall: list[float]
    cpu: list[float]

    @property
    def least(self) -> float:
        return min(self.wall)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def least_cpu(self) -> float:
        return min(self.cpu)


def seconds_of(call: Callable[[], object]) -> Seconds:
    """One run of a call; what it hands out is freed after the clock has stopped."""
    wall, cpu = time.perf_counter(), time.process_time()
    kept = call()
    taken = Seconds([time.perf_counter() - wall], [time.process_time() - cpu])
    del kept
    return taken


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Seconds]:
    """Run every way once in each round; `prepare` (of the same name) runs before it, not counted."""
    taken = {name: Seconds([], []) for name in ways}
    for round_ in range(rounds):
        names = list(ways)[round_ % len(ways) :] + list(ways)[: round_ % len(ways)]  # nobody is always the first
        for name in names:
            if prepare and name in prepare:
                prepare[name]()
            once = seconds_of(ways[name])
            taken[name].wall.extend(once.wall)
            taken[name].cpu.extend(once.cpu)
    return taken


@dataclass
class Report:
    """Tables and goals of one benchmark, printed as text or JSON."""

    name: str
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    goals: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, table: str, way: str, **figures: Any) -> None:
        """Figures of a line of a table; those that are numbers are rounded to three digits."""
        line = self.tables.setdefault(table, {}).setdefault(way, {})
        line.update({key: _rounded(value) for key, value in figures.items()})

    def goal(self, what: str, found: float, *, least: float | None = None, most: float | None = None) -> None:
        """A goal, a figure that should be at least or at most so much."""
        reached = (least is None or found >= least) and (most is None or found <= most)
        self.goals.append({"goal": what, "found": _rounded(found), "least": least, "most": most, "reached": reached})

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def print(self, as_json: bool) -> None:
        if as_json:
            facts = {"benchmark": self.name, "machine": machine(), "tables": self.tables}
            print(json.dumps({**facts, "goals": self.goals, "notes": self.notes}))
            return
        print(f"{self.name}, {time.strftime('%Y-%m-%d')}, {machine()}")
        for table, rows in self.tables.items():
            columns = list(dict.fromkeys(key for figures in rows.values() for key in figures))
            print(f"\n| {table} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
            for way, figures in rows.items():
                print(f"| {way} | " + " | ".join(str(figures.get(key, "–")) for key in columns) + " |")
        print()
        for goal in self.goals:
            bound = f"≥ {goal['least']:g}" if goal["least"] is not None else f"≤ {goal['most']:g}"
            print(f"{'reached' if goal['reached'] else 'not reached':11}  {goal['goal']}: {goal['found']} ({bound})")
        print("".join(f"\n{sentence}" for sentence in self.notes), end="\n" if self.notes else "")


def _rounded(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if abs(value) >= 100:
        return round(value)
    return float(f"{value:.3g}")


def machine() -> str:
    """Processor, its cores, what it has for half precision, graphics card."""
    model = platform.processor() or platform.machine()
    flags = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        pass
    fast = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    return ", ".join([f"{os.cpu_count()} cores {model}", *fast])


def fast_bf16() -> bool:
    """Whether the processor reckons with bfloat16 itself."""
    return "_bf16" in machine()


def parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--slide", type=Path, help="the large slide; made and kept in the user's cache by default")
    return made


def small_slide() -> Path | None:
    """CMU-1-Small-Region.svs: from NAPARI_MIL_DATA, ../shared/data beside the checkout, or File › Open Sample."""
    from napari_mil.features.weights import cache_folder

    name = "CMU-1-Small-Region.svs"
    data = Path(os.environ.get("NAPARI_MIL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return next((place for place in (data / "wsi" / name, cache_folder() / "sample" / name) if place.exists()), None)
