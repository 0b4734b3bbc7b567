"""Runs on disk as the rest of a study sees them: loaded with the weights a person kept, read for curves, resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import FeatureError, MilError

from ._files import read_json

if TYPE_CHECKING:
    from napari_mil.mil import Run

_COLORS = {"srgb": "in sRGB"}


def load_run(run: Run | Path | str) -> Run:
    """A run from its folder, with its best weights, or its last where a person chose to keep those."""
    from napari_mil.mil import Run

    if isinstance(run, Run):
        return run
    folder = Path(run).parent if Path(run).name == "run.json" else Path(run)
    use = read_json(folder / "run.json").get("use") if (folder / "run.json").is_file() else None
    return Run.load(folder, which="last" if use == "last" else "best")


def project_around(run: Path | str) -> Path | None:
    """Folder of the project that a run lies in, wherever below it; None when it lies in none."""
    return next((p for p in Path(run).absolute().parents if (p / "project.json").is_file()), None)


def run_facts(folder: Path | str) -> dict[str, Any]:
    """The content of run.json."""
    path = Path(folder)
    content = read_json(path if path.suffix == ".json" else path / "run.json")
    if not isinstance(content, dict):
        raise MilError(f"{path}: is no run; expected a folder with a run.json of napari-mil.")
    return content


def read_epochs(folder: Path | str) -> list[dict[str, Any]]:
    """The epochs of a run as `EpochReport.to_dict` gave them, oldest first; empty when none is finished."""
    if not (Path(folder) / "run.json").is_file():
        return []
    return list(run_facts(folder).get("history") or [])


def resume_obstacle(folder: Path | str) -> str:
    """Why a run cannot go on, in a sentence; empty when it can."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        return f"{folder.name} has no run.json, so there is nothing to go on with; train anew."
    facts = run_facts(folder)
    if facts.get("finished"):
        return f"{folder.name} is finished; train anew with other settings or another seed."
    if not any((folder / stage / "last.safetensors").is_file() for stage in ("", "plain")):
        return f"{folder.name} has no last checkpoint (last.safetensors); train anew."
    return ""


def refuse_other_features(wanted: Mapping[str, Any], found: Mapping[str, Any], who: str) -> None:
    """Refuse features of another encoder, scale or colours than a model was trained on.

    Parameters
    ----------
    wanted, found : mapping
        `Features.provenance` of the training and of the features at hand: encoder, weights_sha256, target_mpp,
        patch_px, dim, color.
    who : str
        Whose features, for the sentence.

    Raises
    ------
    FeatureError
    """
    differs = []
    for key, what in (("encoder", "encoder"), ("patch_px", "patch size in px"), ("dim", "numbers per patch")):
        if wanted.get(key) and found.get(key) and wanted[key] != found[key]:
            differs.append(f"{what} {found[key]} instead of {wanted[key]}")
    scale, other = (float(facts.get("target_mpp") or 0) for facts in (wanted, found))
    if scale and other and abs(other / scale - 1) > 0.03:
        differs.append(f"{other:g} µm per pixel instead of {scale:g}")
    same_encoder = wanted.get("encoder") == found.get("encoder")
    weights = [str(facts.get("weights_sha256") or "") for facts in (wanted, found)]
    if same_encoder and all(weights) and weights[0] != weights[1]:
        differs.append(f"other weights of the encoder ({weights[1][:8]} instead of {weights[0][:8]})")
    colors = [str(facts.get("color") or "as stored") for facts in (wanted, found)]
    if wanted and colors[0] != colors[1]:
        differs.append(f"colours {_COLORS.get(colors[1], colors[1])} instead of {_COLORS.get(colors[0], colors[0])}")
    if differs:
        raise FeatureError(
            f"{who}: these features do not go with this model: {'; '.join(differs)}. "
            "Prepare the slide with the model's encoder, scale and colours."
        )
