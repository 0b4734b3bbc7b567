"""Long work in a process of its own: specs in, frozen statuses out; the window never waits and never dies with it."""

from __future__ import annotations

from ._executor import Executor, JobHandle
from ._job import Job
from ._process import sensible_threads
from ._records import UnfinishedJob, unfinished_jobs
from ._runner import JobRunner
from ._specs import ApplyJob, CallJob, ExperimentJob, ExtractJob, JobSpec, PredictJob, TrainJob, parse_spec
from ._status import FINISHED, JobStatus, Keep, Phase, plain

__all__ = [
    "FINISHED",
    "ApplyJob",
    "CallJob",
    "Executor",
    "ExperimentJob",
    "ExtractJob",
    "Job",
    "JobHandle",
    "JobRunner",
    "JobSpec",
    "JobStatus",
    "Keep",
    "Phase",
    "PredictJob",
    "TrainJob",
    "UnfinishedJob",
    "parse_spec",
    "plain",
    "sensible_threads",
    "unfinished_jobs",
]
