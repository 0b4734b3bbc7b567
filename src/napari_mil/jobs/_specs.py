"""What a job is to do, as small JSON-able objects; `kind` tells them apart."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from napari_mil.errors import JobError


def _absolute(path: str) -> str:
    # the job's process may stand in another folder
    return str(Path(path).expanduser().absolute())


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # which fields hold paths; written relative to the project folder in a job's record
    path_fields: ClassVar[tuple[str, ...]] = ("project", "out")
    # whether the job may be offered again from a record found in a folder
    resumable: ClassVar[bool] = True

    project: AbsolutePath | None = None

    @property
    def title(self) -> str:
        """A few words for lists and messages."""
        return type(self).__name__.removesuffix("Job")


class ExtractJob(_Spec):
    """Tissue → grid → features, for slides of a project (all: ``slide_ids=None``) or for single slide files.

    With `project` its settings are used. Without, `slides` are paths, `out` is the folder of the feature files,
    `tile` the fields of a ``TileConfig``, `precision` that of the encoder, `slide_mpp` the µm per pixel of slides that
    do not say it, and `srgb` whether their colours are converted by their ICC profiles.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("project", "out", "slides", "weights")

    kind: Literal["extract"] = "extract"
    slide_ids: list[str] | None = None
    slides: list[AbsolutePath] = Field(default_factory=list)
    encoder: str | None = None
    weights: AbsolutePath | None = None
    out: AbsolutePath | None = None
    tile: dict[str, Any] = Field(default_factory=dict)
    slide_mpp: float | None = None
    srgb: bool = False
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    device: str = "auto"
    retry_failed: bool = False

    @model_validator(mode="after")
    def _project_or_slides(self) -> ExtractJob:
        if (self.project is None) == (not self.slides):
            raise ValueError("an extraction needs either a project, or slides")
        if self.slides and (self.out is None or self.encoder is None):
            raise ValueError("an extraction of slide files needs out and encoder")
        return self

    @property
    def title(self) -> str:
        return "Features"


class TrainJob(_Spec):
    """Train `method` (the dict of a ``Method``) on a project; `out` is the run's folder (None: a new one).

    `split` (slide id → role) takes the place of the project's roles; a resumed run keeps those it began with.
    """

    kind: Literal["train"] = "train"
    project: AbsolutePath
    method: dict[str, Any]
    seed: int = 0
    device: str = "auto"
    out: AbsolutePath | None = None
    resume: bool = False
    split: dict[str, Literal["train", "validation", "test"]] | None = None

    @property
    def title(self) -> str:
        return "Training"


class PredictJob(_Spec):
    """Predict slides of a project with a run (``slide_ids=None`` without `paths`: all with features).

    With `out` the maps are written there, with a picture of each and a table; else they are kept with the run.

    `paths` are slide files that the run is used on from tissue to map, as a bundle is.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("project", "run", "paths", "out")

    kind: Literal["predict"] = "predict"
    run: AbsolutePath
    slide_ids: list[str] | None = None
    paths: list[AbsolutePath] = Field(default_factory=list)
    out: AbsolutePath | None = None
    device: str = "auto"

    @property
    def title(self) -> str:
        return "Prediction"


class ApplyJob(_Spec):
    """Run a model bundle (or a run's folder) on slide files: tissue → features → prediction → map, into `out`."""

    path_fields: ClassVar[tuple[str, ...]] = ("project", "bundle", "slides", "out")

    kind: Literal["apply"] = "apply"
    bundle: AbsolutePath
    slides: list[AbsolutePath] = Field(min_length=1)
    out: AbsolutePath
    slide_mpp: float | None = Field(default=None, gt=0, description="of slides that do not say it")
    device: str = "auto"

    @property
    def title(self) -> str:
        return "Model on slides"


class ExperimentJob(_Spec):
    """Several methods (name → dict of a ``Method``) over the splits of a protocol (dict of a ``Protocol``)."""

    kind: Literal["experiment"] = "experiment"
    project: AbsolutePath
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    protocol: dict[str, Any] = Field(default_factory=dict)
    out: AbsolutePath | None = None
    device: str = "auto"

    @property
    def title(self) -> str:
        return "Experiment"


class CallJob(_Spec):
    """Any generator function of an importable module (not of the main script): ``target="package.module:function"``.

    It is called with `kwargs` and may yield dicts or dataclasses; the keys ``fraction``, ``done``/``total``,
    ``epoch``/``epochs``, ``seconds_left`` and ``message`` feed the progress. What it returns becomes the job's
    result. A function that takes ``check_cancelled`` receives a callable which raises ``Cancelled`` once the job is
    to stop.
    """

    # a record found in somebody's folder must never choose the code that runs
    resumable: ClassVar[bool] = False

    kind: Literal["call"] = "call"
    target: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.target.rpartition(":")[2]


JobSpec = ExtractJob | TrainJob | PredictJob | ApplyJob | ExperimentJob | CallJob
_ADAPTER: TypeAdapter[JobSpec] = TypeAdapter(Annotated[JobSpec, Field(discriminator="kind")])


def parse_spec(data: dict[str, Any]) -> JobSpec:
    """The spec that `data` (its JSON) describes.

    Raises
    ------
    JobError
        If the kind is unknown or a field is missing, unknown or of the wrong type.
    """
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "kind"
        raise JobError(f"job description: {where}: {first['msg']}; expected the fields of a JobSpec") from error


def portable(spec: JobSpec, folder: Path) -> dict[str, Any]:
    """`spec` as JSON whose paths inside `folder` are relative, so that a project can be moved."""
    data = spec.model_dump(mode="json")
    for name in spec.path_fields:
        if isinstance(data.get(name), str):
            data[name] = _relative(data[name], folder)
        elif isinstance(data.get(name), list):
            data[name] = [_relative(item, folder) for item in data[name]]
    return data


def from_portable(data: dict[str, Any], folder: Path) -> JobSpec:
    """The inverse of `portable`, for a project that now lies in `folder`."""
    known = {name for kind in typing.get_args(JobSpec) for name in kind.path_fields}
    restored = dict(data)
    for name in known & restored.keys():
        if isinstance(restored[name], str):
            restored[name] = str(folder / restored[name])
        elif isinstance(restored[name], list):
            restored[name] = [str(folder / str(item)) for item in restored[name]]
    return parse_spec(restored)


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(path).relative_to(folder).as_posix()
    except ValueError:
        return path
