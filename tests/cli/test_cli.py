"""The command line: what it prints, what it asks the jobs to do, how it fails and how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from napari_mil.cli import _terminal
from napari_mil.cli._training import parse_settings
from napari_mil.errors import Cancelled, MilError
from napari_mil.jobs import ApplyJob, ExperimentJob, ExtractJob, JobStatus, PredictJob, TrainJob
from napari_mil.lesion import Lesion, LesionSet, read_lesions, write_lesions
from napari_mil.study import Project

from .conftest import Run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The job specs that commands hand in, none of which is run."""
    specs: list[Any] = []

    def take(spec: Any) -> dict[str, Any]:
        specs.append(spec)
        return {"message": "Done.", "methods": {}}

    for module in ("_slides", "_training"):
        monkeypatch.setattr(f"napari_mil.cli.{module}.run_job", take)
    return specs


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A picture with a dark square of tissue."""
    from PIL import Image

    pixels = np.full((600, 800, 3), 240, np.uint8)
    pixels[150:450, 200:600] = (150, 60, 120)
    path = tmp_path / "a slide [ü].png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with two labelled slides that are no files."""
    made = Project.create(tmp_path / "project", slides=[tmp_path / "one.svs", tmp_path / "two.svs"])
    made.update_slides({"one": {"label": "tumor", "role": "train"}, "two": {"label": "normal", "role": "test"}})
    return made


def a_run(project: Project, name: str = "first", **changes: Any) -> Path:
    """A run's folder with the facts that commands read."""
    from napari_mil.mil import Method

    folder = project.folder / "runs" / name
    folder.mkdir(parents=True)
    method = Method.preset("ab_mil_rank").with_settings({"training.epochs": 7}).model_dump(mode="json")
    split = {"train": ["one"], "validation": [], "test": ["two"]}
    facts = {"method": method, "seed": 3, "finished": False, "provenance": {"split": split}, **changes}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


# -- speed and stopping --------------------------------------------------------------------------------------


def test_help_brings_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['napari-mil', '--help']\n"
        "from napari_mil.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'napari', 'qtpy', 'numpy', 'pandas', 'pydantic', 'openslide'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert "experiment" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot send Ctrl-C to another process group")
def test_ctrl_c_cancels_cleanly(tmp_path: Path) -> None:
    """The job is told to stop, the exit code is 130, and no process stays behind."""
    script = tmp_path / "cli.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'jobs')!r})\n"
        "from napari_mil.cli import _app, _terminal, main\n"
        "from napari_mil.jobs import CallJob\n"
        "@_app.app.command()\n"
        "def work(marker: str):\n"
        "    _terminal.run_job(CallJob(target='demo_work:polite', kwargs={'marker': marker}))\n"
        "main()\n"
    )
    marker = tmp_path / "marker"
    process = subprocess.Popen(
        [sys.executable, str(script), "work", str(marker)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "%" in process.stderr.readline()
    time.sleep(0.3)
    # as a terminal does it: to the whole group, the child among them, which must not mind
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert marker.read_text() == "tidy"
    assert "Cancelled" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("stage", ["plain", ""])
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """In the plain run that a training starts from, too: its folder is left as it is, and goes on there."""
    done: list[str] = []

    class Stopped:
        def __init__(self, *_: object, **__: object) -> None:
            self.reports = [{"epoch": 1, "stage": stage}]

        def __enter__(self) -> Stopped:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to close."""

        def submit(self, spec: TrainJob) -> Stopped:
            return self

        def close(self) -> None:
            done.append("close")

        def cancel(self, keep: str) -> None:
            done.append(keep)

        def wait(self, seconds: float) -> JobStatus:
            return JobStatus("1", "train", phase="cancelled", message="Cancelled.")

        def resume_spec(self) -> TrainJob:
            return TrainJob(project="project", method={}, out="run", resume=True)

    def stop(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_mil.jobs.JobRunner", Stopped)
    monkeypatch.setattr(_terminal, "_follow", stop)
    with pytest.raises(Cancelled) as stopped:
        _terminal.run_job(TrainJob(project="project", method={}))
    assert done == ["close" if stage else "best"]
    assert ("in the plain run" in str(stopped.value)) == bool(stage)
    assert "To go on: napari-mil train " in str(stopped.value)
    assert "--resume" in str(stopped.value)


def test_a_mistake_is_one_sentence(run: Run, tmp_path: Path) -> None:
    code, out, err = run("info", tmp_path / "nothing.svs")
    assert code == 2
    assert out == ""
    assert err.startswith("napari-mil: ")
    assert len(err.strip().splitlines()) == 1
    assert "nothing.svs" in err


def test_a_failed_job_is_one_sentence(run: Run, project: Project) -> None:
    code, out, err = run("predict", a_run(project, method={}), "two", "--device", "cpu")
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("napari-mil: ")


def test_version(run: Run) -> None:
    from napari_mil import __version__

    assert run("--version") == (0, f"{__version__}\n", "")


def test_without_a_command_it_opens_the_window(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main_module = pytest.importorskip("napari_mil.widgets.main")
    opened: list[object] = []
    monkeypatch.setattr(main_module, "launch", opened.append)
    assert run()[0] == 0
    assert run("open", tmp_path)[0] == 0
    assert opened == [None, tmp_path]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run()
    assert code == 2
    assert "napari-mil[all]" in err


# -- slides and outlines ----------------------------------------------------------------------------------------


def test_info(run: Run, slide: Path) -> None:
    code, out, _ = run("info", slide, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["dimensions"] == [800, 600]
    assert facts["mpp"] is None
    assert facts["path"] == str(slide)
    code, out, _ = run("info", slide)
    assert "800, 600" in out
    code, out, _ = run("info", slide.parent, "--json")
    assert json.loads(out) == facts


def test_tissue(run: Run, slide: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    code, out, _ = run("tissue", slide, "--mpp", "2", "--out", picture, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["tissue_share"] == pytest.approx(0.25, abs=0.01)
    assert facts["tissue_mm2"] == pytest.approx(0.25 * 800 * 600 * 4 / 1e6, rel=0.05)
    assert facts["patches"] > 0
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels[0, 0].max() < 100  # dimmed
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].max() > 120
    _, _, err = run("tissue", slide)
    assert "µm per pixel" in err
    code, _, err = run("tissue", slide, "--method", "manual")
    assert code == 2
    assert "threshold" in err
    assert run("tissue", slide, "--method", "magic")[0] == 2


def test_lesions_convert(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a.geojson", tmp_path / "b.xml"
    write_lesions(LesionSet([Lesion(shapely.box(0, 0, 10, 20), label="Tumor")]), source)
    code, out, _ = run("lesions", "convert", source, target, "--json")
    assert code == 0
    assert json.loads(out)["objects"] == 1
    assert next(iter(read_lesions(target))).geometry.area == pytest.approx(200)
    assert run("lesions", "convert", tmp_path / "no.xml", target)[0] == 2


def test_extract_asks_for_the_right_job(run: Run, asked: list[Any], slide: Path, project: Project) -> None:
    assert run("extract", project.folder, "--retry-failed", "--slide", "one")[0] == 0
    assert asked[-1] == ExtractJob(project=str(project.folder), slide_ids=["one"], retry_failed=True)
    assert run("extract", slide, "--out", "there", "--target-mpp", "1", "--mpp", "0.5", "--device", "cpu")[0] == 0
    expected = ExtractJob(
        slides=[str(slide)], out="there", encoder="texture", tile={"target_mpp": 1.0}, slide_mpp=0.5, device="cpu"
    )
    assert asked[-1] == expected
    assert run("extract", project.folder, "--encoder", "resnet18")[0] == 0
    assert Project.open(project.folder).config.encoder == "resnet18"


def test_a_precision_becomes_the_projects_own_or_the_jobs(
    run: Run, asked: list[Any], slide: Path, project: Project
) -> None:
    network = ("--encoder", "resnet18")
    assert run("extract", project.folder, *network, "--precision", "fp32")[0] == 0
    assert Project.open(project.folder).config.precision == "fp32"
    assert run("extract", slide, *network, "--precision", "bf16")[0] == 0
    assert asked[-1].precision == "bf16"
    assert run("extract", slide, *network)[0] == 0
    assert asked[-1].precision == "auto"
    code, _, err = run("extract", slide, "--precision", "fp8")
    assert code != 0
    assert "--precision fp8: expected auto, fp32, bf16" in err


def test_what_has_no_precision_is_not_given_one(run: Run, asked: list[Any], slide: Path, project: Project) -> None:
    before = project.feature_set
    for what in (slide, project.folder):
        code, _, err = run("extract", what, "--precision", "bf16")
        assert code == 2
        assert "the encoder texture is no network and has none" in err
    assert asked == []
    project.config.precision = "bf16"  # of another encoder that was tried
    assert project.feature_set == before
    project.config.encoder = "resnet18"
    in_bf16 = project.feature_set
    project.config.precision = "auto"
    assert project.feature_set != in_bf16


def test_extract_really(run: Run, slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    out = tmp_path / "features"
    code, text, err = run("extract", slide, broken, "--out", out, "--mpp", "0.5", "--patch-px", "64", "--json")
    assert code == 2  # one of the two
    assert "broken.png" in err
    result = json.loads(text)
    assert [Path(path).name for path in result["done"]] == [f"{slide.stem}.h5"]
    from napari_mil.features import read_features

    features = read_features(out / f"{slide.stem}.h5")
    assert len(features.features) == len(features.grid) > 0
    assert f"{slide.stem}: {len(features.grid)} patches" in err


def test_import_features_wants_a_place(run: Run, tmp_path: Path) -> None:
    assert run("import-features", tmp_path)[0] == 2
    code, _, err = run("import-features", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "no features of CLAM or TRIDENT" in err
    assert run("import-features", tmp_path, "--out", tmp_path, "--source", "magic")[0] == 2


def test_import_features_of_clam(run: Run, tmp_path: Path) -> None:
    import h5py

    for folder, content in (
        ("clam/h5_files", {"features": np.ones((3, 4), np.float32)}),
        ("clam/patches", {}),
    ):
        (tmp_path / folder).mkdir(parents=True)
        with h5py.File(tmp_path / folder / "case.h5", "w") as file:
            for name, values in content.items():
                file[name] = values
            coords = file.create_dataset("coords", data=np.array([[0, 0], [256, 0], [0, 256]]))
            coords.attrs["patch_size"], coords.attrs["patch_level"] = 256, 0
    code, out, err = run(
        "import-features", tmp_path / "clam", "--out", tmp_path / "ours", "--mpp", "0.5", "--encoder", "x", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["imported"] == 1
    assert (tmp_path / "ours" / "case.h5").is_file()


# -- projects and training ---------------------------------------------------------------------------------------


def test_project_new_and_check(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    rows = [f"s{n}.svs,p{n},{'tumor' if n % 2 else 'normal'}" for n in range(12)]
    table.write_text("path,patient_id,label\n" + "\n".join(rows))
    outlines = tmp_path / "outlines"
    outlines.mkdir()
    write_lesions(LesionSet([Lesion(shapely.box(0, 0, 9, 9), label="Tumor")]), outlines / "s1.geojson")
    code, out, err = run(
        "project", "new", tmp_path / "p", "--slides", table, "--lesions", outlines, "--split", "--json"
    )
    assert code == 0, err
    facts = json.loads(out)
    assert facts["slides"] == 12
    assert facts["outlined"] == 1
    assert facts["labels"] == {"normal": 6, "tumor": 6}
    assert sum(facts["roles"].values()) == 12
    assert min(facts["roles"].values()) > 0
    code, out, _ = run("project", "check", tmp_path / "p")
    assert code == 0
    assert "trainable      no" in out
    assert run("project", "check", tmp_path)[0] == 2


def test_train_asks_for_the_right_job(run: Run, asked: list[Any], project: Project) -> None:
    out = project.folder / "runs" / "mine"
    arguments = (
        "--method",
        "ab_mil_rank",
        "--set",
        "training.epochs=9",
        "--seed",
        "4",
        "--device",
        "cpu",
        "--out",
        out,
    )
    assert run("train", project.folder, *arguments)[0] == 0
    spec = asked[-1]
    assert isinstance(spec, TrainJob)
    assert (spec.seed, spec.device, spec.out, spec.resume) == (4, "cpu", str(out), False)
    assert (spec.method["name"], spec.method["training"]["epochs"]) == ("ab_mil_rank", 9)
    assert run("train", project.folder)[0] == 0
    assert asked[-1].method["name"] == "rank_induction"  # the recommended one
    assert run("train", project.folder, "--method", "ab_mil", "--set", "task.kind=survival")[0] == 0
    assert asked[-1].method["task"] == {"kind": "survival", "n_bins": 4, "bags": "patient"}


def test_train_again_and_resume(run: Run, asked: list[Any], project: Project) -> None:
    folder = a_run(project)
    assert run("train", project.folder, "--from", folder / "run.json")[0] == 0
    spec = asked[-1]
    assert (spec.seed, spec.resume, spec.out) == (3, False, None)
    assert spec.method["training"]["epochs"] == 7
    assert spec.split == {"one": "train", "two": "test"}
    assert run("train", project.folder, "--resume")[0] == 0
    assert (asked[-1].out, asked[-1].resume, asked[-1].seed) == (str(folder), True, 3)
    for wrong in (
        ("--resume", "--method", "ab_mil"),
        ("--from", folder, "--method", "ab_mil"),
        ("--resume", "--seed", 9),
    ):
        assert run("train", project.folder, *wrong)[0] == 2
    (folder / "run.json").write_text(json.dumps({**json.loads((folder / "run.json").read_text()), "finished": True}))
    code, _, err = run("train", project.folder, "--resume")
    assert code == 2
    assert "no unfinished run" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "training.epochs"), "KEY=VALUE"),
        (("--set", "training.epoch=3"), "training.epoch"),
        (("--method", "rank_inductio"), "did you mean"),
        (("--from", "nowhere"), "no readable run.json"),
        (("--set", "task.classes=a,b"), "the labels of a project's slides are its classes"),
    ],
)
def test_wrong_arguments_of_train(run: Run, project: Project, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run("train", project.folder, *arguments)
    assert code == 2
    assert words in err


def test_predict_asks_for_the_right_job(
    run: Run, asked: list[Any], project: Project, slide: Path, tmp_path: Path
) -> None:
    folder = a_run(project)
    assert run("predict", folder)[0] == 0
    assert asked[-1] == PredictJob(project=str(project.folder), run=str(folder), slide_ids=["two"])  # the test slides
    assert run("predict", folder, "one", "--out", tmp_path / "maps")[0] == 0
    assert (asked[-1].slide_ids, asked[-1].out) == (["one"], str(tmp_path / "maps"))
    assert run("predict", folder, slide, "--out", tmp_path / "maps")[0] == 0
    assert asked[-1] == ApplyJob(bundle=str(folder), slides=[str(slide)], out=str(tmp_path / "maps"))
    assert run("predict", folder, "one", slide)[0] == 2
    code, _, err = run("predict", folder, "three")
    assert code == 2
    assert "three is neither a slide of the project" in err
    assert run("predict", tmp_path, slide)[0] == 2
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    assert run("predict", bundle, slide)[0] == 0
    assert asked[-1].bundle == str(bundle)
    assert run("predict", bundle)[0] == 2


def test_bundle(run: Run, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(source: Path, out: Path) -> Path:
        assert source == folder
        out.mkdir()
        (out / "bundle.json").write_text("{}")
        return out

    monkeypatch.setattr("napari_mil.study.export_bundle", save, raising=False)
    folder = a_run(project)
    code, text, _ = run("bundle", folder, tmp_path / "model", "--json")
    assert code == 0
    assert json.loads(text) == {"bundle": str(tmp_path / "model"), "files": ["bundle.json"]}
    code, _, told = run("bundle", tmp_path / "nothing", tmp_path / "other")
    assert code == 2
    assert "no readable run.json" in told


def test_experiment_asks_for_the_right_job(run: Run, asked: list[Any], project: Project) -> None:
    names = "rank_induction, ab_mil_rank"
    assert run("experiment", project.folder, "--methods", names, "--repeats", "3", "--set", "training.epochs=2")[0] == 0
    spec = asked[-1]
    assert isinstance(spec, ExperimentJob)
    assert list(spec.methods) == ["rank_induction", "ab_mil_rank"]
    assert spec.methods["ab_mil_rank"]["training"]["epochs"] == 2
    assert spec.protocol == {"kind": "monte_carlo", "repeats": 3, "seed": 0, "seeds": 1}
    from napari_mil.study.experiments import Protocol

    Protocol.model_validate(spec.protocol)
    assert run("experiment", project.folder, "--methods", "mhim_abmil_c16:ham,mhim_abmil_c16:lr_ham")[0] == 0
    assert asked[-1].methods["mhim_abmil_c16:lr_ham"]["mining"]["low"] == 0.2
    assert run("experiment", project.folder, "--protocol", "k_fold")[0] == 0
    assert Protocol.model_validate(asked[-1].protocol).folds == 5


def test_methods(run: Run) -> None:
    assert run("methods")[1].startswith("rank_induction\n")
    assert "sentence" in json.loads(run("methods", "--json")[1])["rank_induction"]
    assert json.loads(run("methods", "rank_induction", "--json")[1])["training.epochs"] > 0
    assert run("methods", "nothing")[0] == 2
    settings = run("methods", "mhim_abmil_c16")[1].splitlines()
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in settings}
    assert said["aggregator.threshold"].startswith("off ")
    assert "share of patches to mask at random" in said["mining.random"]
    assert all(len(words.split()) > 2 for words in said.values())  # each says what it is for
    assert "(Combinations; In no paper)" in run("methods")[1]
    assert "mhim_abmil_c16:ham\n    mhim_abmil_c16 with mining.random 0.0" in run("methods", "--ablations")[1]
    rows = json.loads(run("methods", "--ablations", "--json")[1])
    assert rows["mhim_abmil_c16:siamese"]["settings"] == {"mining.consistency_weight": 0.0}
    assert json.loads(run("methods", "mhim_abmil_c16:siamese", "--json")[1])["mining.consistency_weight"] == 0


def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_mil.doctor import Finding

    findings = [Finding("One", "ok", "well"), Finding("Two", "advice", "so so", "do this")]
    monkeypatch.setattr("napari_mil.doctor.examine", lambda folder: iter(findings))
    code, out, _ = run("doctor")
    assert code == 0
    assert "advice  Two: so so" in out
    assert "→ do this" in out
    findings.append(Finding("Three", "problem", "bad", "mend it"))
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert json.loads(out)["problems"] == 1
    assert [finding["name"] for finding in json.loads(out)["findings"]] == ["One", "Two", "Three"]


def test_demo_makes_the_sample_project(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[dict[str, Any]] = []

    def create(folder: Path, **options: Any) -> Path:
        options.pop("progress")(1, 2, "Painting slide 1 of 2")
        made.append({"folder": folder, **options})
        return folder / "project"

    monkeypatch.setattr("napari_mil.sample.create_sample", create)
    code, out, err = run("demo", "--folder", tmp_path, "--make-only", "--slides", "6", "--json")
    assert code == 0
    assert json.loads(out) == {"project": str(tmp_path / "project")}
    assert made == [{"folder": tmp_path, "n_slides": 6}]
    assert "Painting slide 1 of 2" in err


# -- what the terminal shows ---------------------------------------------------------------------------------


def test_reports_as_lines() -> None:
    line = _terminal.report_line({"epoch": 3, "epochs": 20, "train_loss": 0.5, "val_auroc": None, "improved": True})
    assert line == "epoch   3/20  loss 0.5000  best so far"
    staged = _terminal.report_line({"epoch": 3, "epochs": 20, "stage": "plain"})
    assert staged == "plain run first, epoch   3/20"
    survival = {"epoch": 3, "epochs": 20, "val_auroc": None, "val_metrics": {"c_index": 0.7}}
    assert _terminal.report_line(survival) == "epoch   3/20  val. C-index 0.7000"
    assert _terminal.report_line({"slide_id": "a", "done": 5, "total": 5}) == "a: 5 patches"
    assert _terminal.report_line({"slide_id": "a", "message": "a: tumor (0.9)"}) == "a: tumor (0.9)"


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert _terminal.duration(seconds) == words


def test_a_terminal_gets_a_bar_and_keeps_the_epochs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from napari_mil.jobs import CallJob

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "jobs"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = _terminal.run_job(CallJob(target="demo_work:epochs", kwargs={"n": 4, "pause": 0.02}))
    assert result == {"epochs": 4}
    err = capsys.readouterr().err
    assert all(f"epoch   {number}/4" in err for number in range(1, 5))


def test_facts_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    _terminal.print_facts({"a": None, "long name": [1.23456789, True], "c": {"x": float("nan")}}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "a          unknown",
        "long name  1.235, yes",
        "c          x not defined",
    ]


def test_result_summaries() -> None:
    sets = {
        "test": {"n": 40, "counts": {"0": 20, "1": 20}, "auroc": {"value": 0.75, "low": 0.5, "high": 1.0}},
        "validation": {"auroc": {"value": None}},
    }
    result = {"run": "r", "message": "Trained.", "metrics": {"sets": sets}}
    assert _terminal.summary(result) == {
        "test AUROC": "0.750 (0.50 to 1.00), 40 slides",
        "run": "r",
        "result": "Trained.",
    }
    predictions = {"s": {"probabilities": [0.25, 0.75], "badge": "TEST"}}
    assert _terminal.summary({"predictions": predictions})["s"] == "0.250, 0.750  TEST"
    predictions["s"]["risk"] = -1.25
    assert _terminal.summary({"predictions": predictions})["s"] == "risk -1.250  0.250, 0.750  TEST"
    named = {"predicted": "b", "probabilities": {"a": 0.25, "b": 0.75}, "badge": "TEST"}
    assert _terminal.summary({"predictions": {"s": named}})["s"] == "b  a 0.250, b 0.750  TEST"
    survival = {"n": 40, "events": 20, "c_index": {"value": 0.75, "low": 0.5, "high": 0.9}}
    classes = {"n": 40, "auroc_macro": 0.71234, "balanced_accuracy": 0.5}
    assert _terminal.summary({"metrics": {"sets": {"test": survival, "validation": classes}}}) == {
        "test C-index": "0.750 (0.50 to 0.90), 40 cases with 20 events",
        "validation macro AUROC": 0.712,
        "validation balanced accuracy": 0.5,
        "result": "Done.",
    }
    with pytest.raises(SystemExit):
        _terminal.finish({"failed": {"a": "is broken"}}, as_json=True)


def test_slides_that_failed_before_name_the_option(run: Run, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    result = {"message": "0 slides prepared.", "passed_over": ["one"], "busy": ["two"], "failed": {}}
    monkeypatch.setattr("napari_mil.cli._slides.run_job", lambda spec: result)
    code, _, told = run("extract", project.folder)
    assert code == 0
    assert "--retry-failed" in told


def test_a_mistake_in_a_setting_is_told_without_its_makers_words(run: Run, slide: Path) -> None:
    code, _, told = run("tissue", slide, "--method", "manual")
    assert code == 2
    assert "Value error" not in told


def test_our_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    from napari_mil.slide import SlideWarning

    with _terminal.warnings_as_lines():
        warnings.warn(SlideWarning("coarser than asked for"), stacklevel=1)
        warnings.warn(SlideWarning("coarser than asked for"), stacklevel=1)
    assert capsys.readouterr().err == "Note: coarser than asked for\n"


def test_errors_inside_commands_are_not_swallowed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("napari_mil.doctor.examine", broken)
    with pytest.raises(ZeroDivisionError):
        run("doctor")


def test_settings_need_a_name() -> None:
    assert parse_settings(["a.b = 1", "c=d=e"]) == {"a.b": "1", "c": "d=e"}
    with pytest.raises(MilError, match="KEY=VALUE"):
        parse_settings(["=1"])
