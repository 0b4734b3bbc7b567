"""The plugin's settings in napari's preferences, with what holds where napari has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LEAST_CACHE_MB = 256
"""A cache that does not hold all that a window shows would have it read and redrawn without end."""


@dataclass(frozen=True)
class Settings:
    """What a person set under Preferences › MIL.

    Attributes
    ----------
    tile_cache_mb : int
        Memory for decoded tiles, at least `LEAST_CACHE_MB`; 0 leaves it to the machine's memory.
    autosave_seconds : float
        How long a change to an outline may wait.
    device : str
        auto, cpu, cuda or mps.
    """

    tile_cache_mb: int = 0
    autosave_seconds: float = 3.0
    device: str = "auto"


def read_settings() -> Settings:
    """The settings as they are now; the defaults where the plugin is not known to napari."""
    from napari.settings import get_plugin_settings

    try:
        own = get_plugin_settings("napari-mil")
        return Settings(
            tile_cache_mb=int(own.slides.tile_cache_mb),  # type: ignore[attr-defined]
            autosave_seconds=float(own.lesions.autosave_seconds),  # type: ignore[attr-defined]
            device=str(own.computing.device),  # type: ignore[attr-defined]
        )
    except (KeyError, AttributeError, ValueError):
        return Settings()


def apply_cache_limit(settings: Settings) -> None:
    """Give the tile cache the size that was asked for, `LEAST_CACHE_MB` at least."""
    from napari_mil.slide import set_cache_limit

    set_cache_limit(max(settings.tile_cache_mb, LEAST_CACHE_MB) * 2**20 if settings.tile_cache_mb else None)


def follow_cache_limit() -> Callable[[], None]:
    """Keep to the size that is asked for, now and when it is changed; gives what ends it."""
    from napari.settings import get_plugin_settings

    def changed(_: object = None) -> None:
        apply_cache_limit(read_settings())

    changed()
    try:
        emitter = get_plugin_settings("napari-mil").slides.events.tile_cache_mb  # type: ignore[attr-defined]
    except (KeyError, AttributeError, ValueError):  # the plugin is not known to napari
        return lambda: None
    emitter.connect(changed)
    return lambda: emitter.disconnect(changed)


def async_slicing() -> bool:
    """Whether napari slices outside the window's thread."""
    from napari.settings import get_settings

    return bool(get_settings().experimental.async_)


def set_async_slicing(on: bool) -> None:
    """Switch it, because the person asked for it."""
    from napari.settings import get_settings

    get_settings().experimental.async_ = on
