"""Studies: a project on disk, splits, training and prediction on it, experiments and their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

# public name → its module; loaded on first use
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "project": ["Project"],
        "config": ["ProjectConfig", "SlideRow", "order_labels"],
        "findings": ["Finding"],
        "table": ["preview_table", "read_table", "write_table"],
        "splits": ["propose_split", "monte_carlo", "k_fold"],
        "badges": ["role_badge"],
        "bags": ["ProjectBags", "slide_patch_labels"],
        "prepare": [
            "Patches",
            "PrepareSummary",
            "ProjectEstimate",
            "open_project_slide",
            "patches_of",
            "preview_patches",
            "grid_for",
            "prepare_slide",
            "prepare_all",
            "estimate_project",
        ],
        "train": ["train_project", "retrain_from", "changes_since", "method_for"],
        "evaluate": ["evaluate_run"],
        "runs": ["load_run", "read_epochs", "resume_obstacle"],
        "predict": [
            "MapScores",
            "PredictReport",
            "predict_slide",
            "predict_project",
            "load_map_scores",
            "save_map_scores",
        ],
        "bundle": ["Bundle", "Applied", "export_bundle", "load_bundle", "bundle_of_run", "apply_bundle"],
        "metrics": ["slide_metrics", "metrics_sentence"],
        "experiments": ["Protocol", "ExperimentReport", "experiment"],
        "report": ["results_table", "write_report"],
    },
)

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
    from .evaluate import evaluate_run as evaluate_run
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
    from .train import method_for as method_for
    from .train import retrain_from as retrain_from
    from .train import train_project as train_project
