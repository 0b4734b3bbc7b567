"""A run: the trained weights and everything they depend on, as a folder of plain files. Free of torch until needed."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import napari_mil
from napari_mil.errors import MethodError, TrainingError

from .files import read_tensors, write_tensors, write_text
from .method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from .aggregators import Aggregator

SCHEMA_VERSION = 1
RUN_JSON, EPOCHS_CSV, BEST, LAST = "run.json", "epochs.csv", "best.safetensors", "last.safetensors"
MODEL = "model."
"""Prefix of the network's weights in last.safetensors."""


@dataclass
class Run:
    """A trained model with its method, history and provenance.

    Parameters
    ----------
    method : Method
    in_dim, n_classes : int
        Numbers per patch, and classes that a person sees.
    classes : tuple of str
        Their names; for survival, the bins of time.
    seed : int
    device : str
        Where it was trained.
    best_epoch : int
        Counted from 1; 0 before the first is over.
    history : list of dict
        `EpochReport.to_dict()` of each epoch.
    provenance : dict
        What the caller recorded: features and encoder, split, hashes.
    notes : list of str
        Sentences a person should read.
    finished : bool
        False while it trains, and after it was interrupted.
    folder : Path or None
        Where it lives on disk.
    time_edges : tuple of float
        Survival: edges of the bins (n_bins + 1), in the unit of the bags' times; empty for other tasks.
    state : dict of str to tensor, or None
        The weights; read from the folder on first use of `weights`.
    """

    method: Method
    in_dim: int
    n_classes: int
    classes: tuple[str, ...]
    seed: int = 0
    device: str = "cpu"
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    folder: Path | None = None
    which: Literal["best", "last"] = "best"
    time_edges: tuple[float, ...] = ()
    state: dict[str, Tensor] | None = field(default=None, repr=False)

    # ------------------------------------------------------------------------------------------------ network
    @property
    def weights(self) -> dict[str, Tensor]:
        """The network's state dict.

        Raises
        ------
        TrainingError
            No epoch was finished, or the file is damaged.
        """
        if self.state is None:
            if self.folder is None:
                raise TrainingError("This run has no weights: no epoch of its training was finished.")
            tensors, _ = read_tensors(self.folder / (BEST if self.which == "best" else LAST))
            if self.which == "last":
                tensors = {key.removeprefix(MODEL): t for key, t in tensors.items() if key.startswith(MODEL)}
            self.state = tensors
        return self.state

    def build(self) -> Aggregator:
        """The network with these weights, in eval mode, on the CPU.

        Raises
        ------
        TrainingError
            The weights are not those of this method's network.
        """
        import torch

        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn and replaced: leave no trace
            model = self.method.build(self.in_dim, self.n_classes)
        try:
            model.load_state_dict(self.weights, strict=True)
        except RuntimeError as error:
            where = f"{self.folder}: " if self.folder else ""
            what = " ".join(str(error).split()).partition(": ")[2]  # torch's list, on one line
            raise TrainingError(
                f"{where}the weights do not fit the network that run.json describes: {what} Train it again."
            ) from error
        return model.eval()

    # --------------------------------------------------------------------------------------------------- disk
    @classmethod
    def load(cls, folder: Path | str, which: Literal["best", "last"] = "best") -> Run:
        """A run from its folder; the weights are read on first use.

        Raises
        ------
        TrainingError
            No run there, or run.json cannot be understood.
        """
        folder = Path(folder)
        if which not in ("best", "last"):
            raise TrainingError(f"A run has the checkpoints best and last; {which!r} was asked for.")
        path = folder / RUN_JSON
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["schema_version"] > SCHEMA_VERSION:
                raise TrainingError(
                    f"{path} was written by a newer napari-mil (format {data['schema_version']}, this one knows "
                    f"{SCHEMA_VERSION}); update napari-mil."
                )
            return cls(
                method=Method.model_validate(data["method"]),
                in_dim=int(data["in_dim"]),
                n_classes=int(data["n_classes"]),
                classes=tuple(data["classes"]),
                seed=int(data["seed"]),
                device=str(data["device"]),
                best_epoch=int(data["best_epoch"]),
                history=list(data["history"]),
                provenance=dict(data["provenance"]),
                notes=list(data["notes"]),
                versions=dict(data["versions"]),
                finished=bool(data["finished"]),
                folder=folder,
                which=which,
                time_edges=tuple(float(edge) for edge in data.get("time_edges", ())),
            )
        except FileNotFoundError as error:
            raise TrainingError(f"{folder} holds no run: {RUN_JSON} is missing.") from error
        except MethodError as error:
            raise TrainingError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is not a run of napari-mil, or is damaged ({error!r}).") from error

    def save(self, folder: Path | str) -> Path:
        """Write run.json, epochs.csv and best.safetensors; each file whole or not at all."""
        folder = Path(folder)
        write_tensors(folder / BEST, self.weights, self.metadata())
        self.folder = folder
        self.save_facts()
        return folder

    def save_facts(self) -> None:
        """Write run.json and epochs.csv into the run's folder."""
        assert self.folder is not None
        write_text(self.folder / EPOCHS_CSV, _as_csv(self.history))
        write_text(self.folder / RUN_JSON, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """What run.json holds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "method": self.method.model_dump(mode="json"),
            "in_dim": self.in_dim,
            "n_classes": self.n_classes,
            "classes": list(self.classes),
            "time_edges": list(self.time_edges),
            "seed": self.seed,
            "device": self.device,
            "finished": self.finished,
            "best_epoch": self.best_epoch,
            "best": next((row for row in self.history if row["epoch"] == self.best_epoch), None),
            "notes": self.notes,
            "versions": self.versions,
            "provenance": self.provenance,
            "history": self.history,
        }

    def metadata(self) -> dict[str, str]:
        """Texts beside the weights, so that the file alone says what it is."""
        return {
            "format": f"napari-mil run {SCHEMA_VERSION}",
            "method": self.method.model_dump_json(),
            "in_dim": str(self.in_dim),
            "n_classes": str(self.n_classes),
            "epoch": str(self.best_epoch),
        }


def versions() -> dict[str, str]:
    """Of the software that a result depends on."""
    import torch

    return {
        "napari_mil": napari_mil.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pydantic": version("pydantic"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def plain(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """A mapping as JSON keeps it (paths and arrays become text and lists)."""

    def other(item: Any) -> Any:
        return item.tolist() if hasattr(item, "tolist") else str(item)

    result: dict[str, Any] = json.loads(json.dumps(dict(value or {}), default=other))
    return result


def _as_csv(history: list[dict[str, Any]]) -> str:
    parts: dict[str, None] = {name: None for row in history for name in row["parts"]}
    metrics: dict[str, None] = {name: None for row in history for name in row.get("val_metrics", ()) if name != "auroc"}
    before = ["epoch", "train_loss", "val_loss", "val_auroc"]
    after = ["learning_rate", "seconds", "improved", "memory_mb"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*before, *(f"val_{name}" for name in metrics), *after, *parts])
    for row in history:
        figures = [row.get("val_metrics", {}).get(name) for name in metrics]
        values = [row["parts"].get(name) for name in parts]
        writer.writerow([*(row[n] for n in before), *figures, *(row[n] for n in after), *values])
    return text.getvalue()
