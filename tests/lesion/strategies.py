"""Random outlines: holes, parts, lines and points, whole and broken numbers."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import strategies as st

from napari_mil.lesion import Lesion, LesionSet

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12).map(str.strip)
COLORS = st.none() | st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def stars(draw: st.DrawFn, center: tuple[float, float] = (0.0, 0.0), radius: float = 100.0) -> np.ndarray:
    """A simple ring (n, 2) around a point, inside the radius and outside a quarter of it."""
    n = draw(st.integers(3, 12))
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + draw(st.floats(0, 1))
    spread = np.array(draw(st.lists(st.floats(0.7, 1.0), min_size=n, max_size=n)))
    return np.asarray(center) + np.column_stack([np.cos(angle), np.sin(angle)]) * (radius * spread)[:, None]


@st.composite
def polygons(draw: st.DrawFn, center: tuple[float, float] | None = None) -> shapely.Polygon:
    """A valid polygon with up to four holes, far apart enough not to touch."""
    x, y = center or (draw(st.floats(0, 1e5)), draw(st.floats(0, 1e5)))
    shell = draw(stars((x, y), 1000.0))
    spots = draw(st.lists(st.sampled_from([(-1, -1), (-1, 1), (1, -1), (1, 1)]), unique=True, max_size=4))
    holes = [draw(stars((x + 100 * i, y + 100 * j), 90.0)) for i, j in spots]
    polygon = shapely.Polygon(shell, holes)
    if draw(st.booleans()):
        whole = shapely.transform(polygon, np.round)
        polygon = whole if whole.is_valid else polygon
    return polygon


@st.composite
def geometries(draw: st.DrawFn, areas_only: bool = False) -> shapely.Geometry:
    """A polygon, several far apart, or a line or points."""
    kind = draw(
        st.sampled_from(["one", "one", "many"] if areas_only else ["one", "one", "many", "line", "point", "dots"])
    )
    if kind == "one":
        return draw(polygons())
    if kind == "many":
        n = draw(st.integers(2, 3))
        return shapely.MultiPolygon([draw(polygons((5000.0 * (i + 1), 300.5))) for i in range(n)])
    xy = st.tuples(st.floats(-1e4, 1e5), st.floats(-1e4, 1e5))
    if kind == "point":
        return shapely.Point(draw(xy))
    points = draw(st.lists(xy, min_size=2, max_size=5, unique=True))
    return shapely.LineString(points) if kind == "line" else shapely.MultiPoint(points)


@st.composite
def lesions(draw: st.DrawFn, areas_only: bool = False) -> Lesion:
    """One object with everything filled in somehow."""
    return Lesion(
        draw(geometries(areas_only)),
        label=draw(st.sampled_from(["Tumor", "Normal", "Exclusion", "Stroma", "My own <class> & more"]) | TEXT),
        name=draw(TEXT),
        color=draw(COLORS),
        locked=draw(st.booleans()),
    )


def lesion_sets(areas_only: bool = False) -> st.SearchStrategy[LesionSet]:
    """Up to four objects."""
    return st.lists(lesions(areas_only), max_size=4).map(LesionSet)


def same_geometry(a: shapely.Geometry, b: shapely.Geometry, tolerance: float = 1e-6) -> bool:
    """The same rings and points to a tolerance, in whatever order; one part in a collection is that part."""
    return bool(_plain(a).equals_exact(_plain(b), tolerance, normalize=True))


def _plain(geometry: shapely.Geometry) -> shapely.Geometry:
    parts = getattr(geometry, "geoms", [geometry])
    return parts[0] if len(parts) == 1 else geometry
