"""Which aggregators there are: ours, and those other packages announce. Free of torch; listing imports nothing."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

ENTRY_POINT_GROUP = "napari_mil.aggregators"

BUILT_IN = (
    "ab_mil",
    "ab_mil_rank",
    "ab_mil_mhim",
    "dsmil",
    "trans_mil",
    "clam_sb",
    "clam_mb",
    "dtfd",
    "mean",
    "max",
    "patch_classifier",
)


def announced() -> dict[str, EntryPoint]:
    """Aggregators of other packages by name; a name of ours is not overridden."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN}


def aggregator_names() -> list[str]:
    """Names that `build_aggregator` knows."""
    return [*BUILT_IN, *sorted(announced())]
