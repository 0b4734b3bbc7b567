"""The person's settings: declared in napari.yaml, kept by napari, changed under Preferences › Plugins."""

from __future__ import annotations

from dataclasses import dataclass

_MB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What can be set, with the defaults of napari.yaml.

    Attributes
    ----------
    tile_cache_mb : int
        Memory for decoded tiles; 0 means a quarter of the machine's memory, at most 2048 MB.
    autosave_seconds : float
        How long a change to an outline may wait before it is saved.
    device : str
        "auto", "cpu", "cuda" or "mps".
    """

    tile_cache_mb: int = 0
    autosave_seconds: float = 3.0
    device: str = "auto"

    @property
    def tile_cache_bytes(self) -> int | None:
        """The limit for `napari_mil.slide.set_cache_limit`; None is its default."""
        return self.tile_cache_mb * _MB if self.tile_cache_mb > 0 else None


def read_settings() -> Settings:
    """The settings as they stand; the defaults where napari knows none (an editable install without its manifest)."""
    from napari.settings import get_plugin_settings

    try:
        kept = get_plugin_settings("napari-mil")
    except KeyError:
        return Settings()
    return Settings(
        tile_cache_mb=kept.slides.tile_cache_mb,
        autosave_seconds=kept.lesions.autosave_seconds,
        device=kept.computing.device,
    )
