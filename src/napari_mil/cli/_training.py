"""Commands that train, predict and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mil.errors import MilError

from ._app import Device, Json, app
from ._projects import open_project
from ._slides import slide_files
from ._terminal import finish, print_facts, readable, run_job, say

if TYPE_CHECKING:
    from napari_mil.jobs import JobSpec
    from napari_mil.mil import Method
    from napari_mil.study import Project

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. training.epochs=20; repeatable.")
]
ProjectFolder = Annotated[Path, typer.Argument(metavar="PROJECT", help="A project folder.")]


@app.command()
def train(
    project: ProjectFolder,
    method: Annotated[str | None, typer.Option(help="A preset (rank_induction), see “napari-mil methods”.")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="The same seed on the same device gives the same weights.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; a new one in the project, if none is given.")
    ] = None,
    again: Annotated[Path | None, typer.Option("--from", help="Do this run (its run.json or folder) again.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out, or the newest unfinished one.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a method on a project."""
    from napari_mil.jobs import TrainJob

    opened = open_project(project)
    changes = parse_settings(settings)
    if "task.classes" in changes:
        raise MilError("the labels of a project's slides are its classes: leave out --set task.classes")
    if resume:
        if again is not None or method is not None or changes:
            raise MilError("--resume goes on with the run's own method: leave out --method, --set and --from")
        run = run_file(out) if out is not None else _newest_unfinished(opened.runs())
        facts, out = read_run(run), run.parent
    elif again is not None:
        from napari_mil.study.train import changes_since

        facts = read_run(run_file(again))
        for change in changes_since(opened, again):
            say(f"Note: {change}")
    else:
        facts = {}
    spec = TrainJob(
        project=str(project),
        method=_method(facts, method, changes),
        seed=seed if seed is not None else int(facts.get("seed", 0)),
        device=device,
        out=None if out is None else str(out),
        resume=resume,
        split=_split(facts) if again is not None else None,
    )
    if resume and seed is not None and seed != facts.get("seed"):
        raise MilError(f"the run was started with seed {facts.get('seed')}: leave out --seed")
    finish(run_job(spec), as_json=as_json)


def _method(facts: dict[str, Any], preset: str | None, changes: dict[str, str]) -> dict[str, Any]:
    from napari_mil.mil import Method

    if facts:
        if preset is not None:
            raise MilError("--from brings its own method: leave out --method")
        method = Method.model_validate(facts["method"])
    else:
        method = Method.preset(preset or next(iter(Method.presets())))
    plain: dict[str, Any] = method.with_settings(changes).model_dump(mode="json")
    return plain


def _split(facts: dict[str, Any]) -> dict[str, Any]:
    split = (facts.get("provenance") or {}).get("split") or {}
    roles = {slide_id: role for role, ids in split.items() for slide_id in ids}
    if not roles:
        raise MilError("the run.json names no slides, so the run cannot be done again")
    return roles


def parse_settings(settings: list[str] | None) -> dict[str, str]:
    """``["a.b=1"]`` as ``{"a.b": "1"}``.

    Raises
    ------
    MilError
        If one has no ``=``.
    """
    parsed = {}
    for item in settings or ():
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise MilError(f"--set {item}: expected KEY=VALUE, e.g. training.epochs=20")
        parsed[key.strip()] = value.strip()
    return parsed


def run_file(path: Path) -> Path:
    """The run.json that `path`, a run's folder or that file, means."""
    return path if path.suffix == ".json" else path / "run.json"


def read_run(path: Path) -> dict[str, Any]:
    """The facts of a run.

    Raises
    ------
    MilError
        If there is no readable run.json.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MilError(f"{path} is no readable run.json ({error}); expected one that a training wrote") from error
    if "method" not in facts:
        raise MilError(f"{path} names no method; expected the run.json of a training")
    return facts


def _newest_unfinished(runs: list[Path]) -> Path:
    """The run.json that was written last, whatever its folder is called, among those of unfinished runs."""
    found = [folder / "run.json" for folder in runs if (folder / "run.json").is_file()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if not read_run(path).get("finished", False):
            say(f"Note: going on with the run {path.parent.name}; another one: --out FOLDER")
            return path
    raise MilError(
        "the project has no unfinished run of its own; for a run kept elsewhere give its folder: --out FOLDER"
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run's folder, or a model bundle.")],
    slides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SLIDE]…", help="Slide files, folders, or slides of the run's project (its test slides)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of predictions and maps.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of slide files that do not say it.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict slides and write their maps: with a run of a project, or with a model bundle."""
    finish(run_job(_prediction(model, slides or [], out, mpp, device)), as_json=as_json)


@app.command()
def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder for the model.")],
    as_json: Json = False,
) -> None:
    """Save a run's model with its encoder and scale into a folder of its own, which runs on any slide."""
    from napari_mil.study import export_bundle

    read_run(run_file(run))
    made = export_bundle(run_file(run).parent, out)
    print_facts({"bundle": made, "files": sorted(path.name for path in made.iterdir())}, as_json=as_json)


def _prediction(model: Path, slides: list[str], out: Path | None, mpp: float | None, device: str) -> JobSpec:
    from napari_mil.jobs import ApplyJob, PredictJob

    is_bundle = (model / "bundle.json").is_file()
    if not is_bundle and not (model / "run.json").is_file():
        raise MilError(f"{model} is neither a run (run.json) nor a model bundle (bundle.json)")
    owner = None if is_bundle else _project_around(model)
    ids = [name for name in slides if owner is not None and name in owner.slide_ids]
    if owner is not None and not slides:
        ids = [row.slide_id for row in owner.slides if row.role == "test"]
        if not ids:
            raise MilError(f"{owner.folder} has no test slides; name the slides to predict")
    if owner is not None and ids and len(ids) >= len(slides):
        target = None if out is None else str(out)
        return PredictJob(project=str(owner.folder), run=str(model), slide_ids=ids, out=target, device=device)
    if ids:
        raise MilError(f"{', '.join(ids[:3])} belong to the project, others do not: predict them apart")
    if not slides:
        raise MilError("name the slides that the model shall run on")
    if owner is not None:
        for name in slides:
            if not Path(name).exists():
                raise MilError(f"{name} is neither a slide of the project {owner.folder} nor a slide file")
    found = slide_files([Path(name) for name in slides])
    target = str(out or Path(f"{model.name}-maps"))
    paths = [str(path) for path in found]
    return ApplyJob(bundle=str(model), slides=paths, out=target, slide_mpp=mpp, device=device)


def _project_around(run: Path) -> Project | None:
    folder = run.absolute().parent.parent
    return open_project(folder) if (folder / "project.json").is_file() else None


@app.command()
def experiment(
    project: ProjectFolder,
    methods: Annotated[str, typer.Option(help="Presets (rank_induction) or rows of ablations, with commas.")] = "",
    protocol: Annotated[str, typer.Option(help="monte_carlo, k_fold, or as_is (the project's roles).")] = "monte_carlo",
    repeats: Annotated[int, typer.Option(help="Splits (monte_carlo) or folds (k_fold).")] = 5,
    seeds: Annotated[int, typer.Option(help="Trainings of each split.")] = 1,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Of splits and weights.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the results.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare methods over several patient-wise splits."""
    from napari_mil.jobs import ExperimentJob
    from napari_mil.mil import Method

    open_project(project)
    names = [name.strip() for name in methods.split(",") if name.strip()] or [next(iter(Method.presets()))]
    changes = parse_settings(settings)
    spec = ExperimentJob(
        project=str(project),
        methods={name: Method.preset(name).with_settings(changes).model_dump(mode="json") for name in names},
        protocol={
            "kind": protocol,
            "folds" if protocol == "k_fold" else "repeats": repeats,
            "seed": seed,
            "seeds": seeds,
        },
        out=None if out is None else str(out),
        device=device,
    )
    result = run_job(spec)
    if as_json:
        print_facts(result, as_json=True)
        return
    for name, figures in result["methods"].items():
        parts = [f"{key} {value['mean']:.3f} ± {value['sd'] or 0:.3f} ({value['n']})" for key, value in figures.items()]
        print(f"{name}: {', '.join(parts) or 'no figures'}")
    print(result["message"])


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A preset, to see its settings.")] = None,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="The rows of the papers' ablations, which are names of methods, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the presets of methods, or all settings of one."""
    from napari_mil.mil import Method
    from napari_mil.mil.presets import ABLATIONS

    if name is not None:
        _print_method(Method.preset(name), as_json=as_json)
        return
    if ablations:
        rows = {row: {"preset": preset, "settings": changes} for row, (preset, changes) in ABLATIONS.items()}
        if as_json:
            print_facts(rows, as_json=True)
            return
        for row, (preset, changes) in ABLATIONS.items():
            changed = ", ".join(f"{key} {'none' if value is None else value}" for key, value in changes.items())
            print(f"{row}\n    {preset}{f' with {changed}' if changed else ' as it is'}")
        return
    presets = Method.presets()
    if as_json:
        facts = ("title", "sentence", "paper", "family", "row")
        print_facts(
            {key: {fact: getattr(preset, fact) for fact in facts} for key, preset in presets.items()}, as_json=True
        )
        return
    for key, info in presets.items():
        print(f"{key}\n    {info.title}. {info.sentence} ({info.family}; {info.source})")


def _print_method(method: Method, *, as_json: bool) -> None:
    """All settings of a method: with their values, and what each is for."""
    settings = method.settings()
    if as_json:
        print_facts(settings, as_json=True)
        return
    from napari_mil.mil.described import Setting, describe_method

    known = {}
    for part in describe_method():
        if part.key:
            known[part.key] = Setting(part.key, part.title, part.help, "choice", None)
        known.update({setting.key: setting for setting in part.kind(str(settings.get(part.key, ""))).settings})
    words = {}
    for key, value in settings.items():
        described = known.get(key)
        words[key] = described.none_means if described is not None and value is None else readable(value)
    names, values = (max(map(len, texts)) for texts in (words, words.values()))
    for key, value in words.items():
        print(f"{key:<{names}}  {value:<{values}}  {known[key].help if key in known else ''}".rstrip())
