"""The folder name of a feature set: the encoder, and eight digits that change with everything chosen before it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def feature_set_name(
    encoder: Any,
    tile_config: Any,
    tissue_config: Any = None,
    *,
    weights: str | None = None,
    color: str = "as stored",
    precision: str = "auto",
) -> str:
    """``"<encoder>-<8 hex digits>"``, the same for the same choices on every machine.

    Parameters
    ----------
    encoder : str, Path or Encoder
        A name, the path of a ``.pt2`` program (its JSON's name counts), or the encoder itself.
    tile_config, tissue_config : pydantic model, mapping, JSON string or None
    weights : str, optional
        A choice of weights that tells two sets of one encoder apart.
    color : str
        "as stored", which no name tells, or "srgb".
    precision : str
        "auto", which no name tells, or the one that was asked for.
    """
    name = _encoder_name(encoder)
    choices = {"encoder": name, "tile": _as_json(tile_config), "tissue": _as_json(tissue_config), "weights": weights}
    if color != "as stored":
        choices["color"] = color
    if precision != "auto":
        choices["precision"] = precision
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', name).strip('._') or 'encoder'}-{digest}"


def _encoder_name(encoder: Any) -> str:
    if not isinstance(encoder, str | Path):
        return str(encoder.name)
    if not str(encoder).lower().endswith(".pt2"):
        return str(encoder)
    path = Path(encoder)
    try:
        return str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return path.stem


def _as_json(config: Any) -> Any:
    if config is None:
        return {}
    if isinstance(config, str):
        return json.loads(config)
    if isinstance(config, Mapping):
        return json.loads(json.dumps(dict(config), sort_keys=True, default=str))
    return config.model_dump(mode="json")
