"""Studies: a project on disk, splits, training and prediction on it, experiments and their reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name → its module; loaded on first use
_PUBLIC = {
    "Project": "project",
    "ProjectConfig": "config",
    "SlideRow": "config",
    "order_labels": "config",
    "Finding": "findings",
    "preview_table": "table",
    "read_table": "table",
    "write_table": "table",
    "propose_split": "splits",
    "monte_carlo": "splits",
    "k_fold": "splits",
    "role_badge": "badges",
    "ProjectBags": "bags",
    "slide_patch_labels": "bags",
    "Patches": "prepare",
    "PrepareSummary": "prepare",
    "ProjectEstimate": "prepare",
    "open_project_slide": "prepare",
    "patches_of": "prepare",
    "preview_patches": "prepare",
    "grid_for": "prepare",
    "prepare_slide": "prepare",
    "prepare_all": "prepare",
    "estimate_project": "prepare",
    "train_project": "train",
    "retrain_from": "train",
    "changes_since": "train",
    "evaluate_run": "train",
    "method_for": "train",
    "load_run": "runs",
    "read_epochs": "runs",
    "resume_obstacle": "runs",
    "MapScores": "predict",
    "PredictReport": "predict",
    "predict_slide": "predict",
    "predict_project": "predict",
    "load_map_scores": "predict",
    "save_map_scores": "predict",
    "Bundle": "bundle",
    "Applied": "bundle",
    "export_bundle": "bundle",
    "load_bundle": "bundle",
    "bundle_of_run": "bundle",
    "apply_bundle": "bundle",
    "slide_metrics": "metrics",
    "Protocol": "experiments",
    "ExperimentReport": "experiments",
    "experiment": "experiments",
    "results_table": "report",
    "write_report": "report",
    "metrics_sentence": "metrics",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from .badges import role_badge as role_badge
    from .bags import ProjectBags as ProjectBags
    from .bags import slide_patch_labels as slide_patch_labels
    from .bundle import Applied as Applied
    from .bundle import Bundle as Bundle
    from .bundle import apply_bundle as apply_bundle
    from .bundle import bundle_of_run as bundle_of_run
    from .bundle import export_bundle as export_bundle
    from .bundle import load_bundle as load_bundle
    from .config import ProjectConfig as ProjectConfig
    from .config import SlideRow as SlideRow
    from .config import order_labels as order_labels
    from .experiments import ExperimentReport as ExperimentReport
    from .experiments import Protocol as Protocol
    from .experiments import experiment as experiment
    from .findings import Finding as Finding
    from .metrics import metrics_sentence as metrics_sentence
    from .metrics import slide_metrics as slide_metrics
    from .predict import MapScores as MapScores
    from .predict import PredictReport as PredictReport
    from .predict import load_map_scores as load_map_scores
    from .predict import predict_project as predict_project
    from .predict import predict_slide as predict_slide
    from .predict import save_map_scores as save_map_scores
    from .prepare import Patches as Patches
    from .prepare import PrepareSummary as PrepareSummary
    from .prepare import ProjectEstimate as ProjectEstimate
    from .prepare import estimate_project as estimate_project
    from .prepare import grid_for as grid_for
    from .prepare import open_project_slide as open_project_slide
    from .prepare import patches_of as patches_of
    from .prepare import prepare_all as prepare_all
    from .prepare import prepare_slide as prepare_slide
    from .prepare import preview_patches as preview_patches
    from .project import Project as Project
    from .report import results_table as results_table
    from .report import write_report as write_report
    from .runs import load_run as load_run
    from .runs import read_epochs as read_epochs
    from .runs import resume_obstacle as resume_obstacle
    from .splits import k_fold as k_fold
    from .splits import monte_carlo as monte_carlo
    from .splits import propose_split as propose_split
    from .table import preview_table as preview_table
    from .table import read_table as read_table
    from .table import write_table as write_table
    from .train import changes_since as changes_since
    from .train import evaluate_run as evaluate_run
    from .train import method_for as method_for
    from .train import retrain_from as retrain_from
    from .train import train_project as train_project


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_mil.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
