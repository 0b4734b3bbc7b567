"""Runs on disk: interrupted and resumed, damaged, moved, read again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_mil.errors import Cancelled, TrainingError
from napari_mil.mil import Bag, Method, Run, fit, predict
from napari_mil.mil.files import write_bytes

from .conftest import Stop, finish, make_bags, quick, same

FILES = {"run.json", "epochs.csv", "best.safetensors", "last.safetensors"}


def interrupt(method: Method, train, validation, out: Path, epochs: int) -> None:
    """Close the generator after so many epochs, as a closed window does."""
    training = fit(method, train, validation, out=out, seed=7)
    for _ in range(epochs):
        next(training)
    training.close()


@pytest.mark.parametrize(
    "preset",
    ["rank_induction", "rank_sampled", "ab_mil", "mhim", "mhim2", "patch_classifier", "shuffled_outlines", "adamw"],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_resumed_is_the_same_as_uninterrupted(preset: str, epochs: int, train, validation, tmp_path: Path) -> None:
    method = {
        "rank_sampled": lambda: quick(supervision__sample=2, supervision__cross_slide_negatives=3),
        "mhim": lambda: quick("mhim_abmil_c16", mining__teacher="copy", mining__momentum=0.5),
        "mhim2": lambda: quick("mhim_abmil_c16", mining__kind="mhim2", mining__teacher="copy", mining__momentum=0.5),
        "adamw": lambda: quick("ab_mil", training__optimizer="adamw", training__schedule="cosine"),
    }.get(preset, lambda: quick(preset))()
    _, whole = finish(fit(method, train, validation, seed=7, out=tmp_path / "whole"))
    interrupt(method, train, validation, tmp_path / "cut", epochs)
    torch.randn(10)
    reports, resumed = finish(fit(method, train, validation, seed=7, out=tmp_path / "cut", resume=True))
    assert [report.epoch for report in reports] == list(range(epochs + 1, 5))
    assert same(whole, resumed)
    assert (whole.best_epoch, whole.classes) == (resumed.best_epoch, resumed.classes)
    for one, other in zip(whole.history, resumed.history, strict=True):
        for key in ("epoch", "train_loss", "val_loss", "val_auroc", "parts", "learning_rate", "best_epoch"):
            assert one[key] == other[key]
    for name in ("best.safetensors", "last.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_cancelled_in_the_middle_then_resumed(train, validation, tmp_path: Path) -> None:
    """`on_bag` raises in epoch 3: the checkpoints of epoch 2 stay, and going on gives the whole run."""
    method, out = quick("mhim_abmil_c16", mining__teacher="copy"), tmp_path / "run"
    _, whole = finish(fit(method, train, validation))
    with pytest.raises(Cancelled):
        finish(fit(method, train, validation, out=out, on_bag=Stop(12 + 12 + 5)))
    for which in ("best", "last"):
        run = Run.load(out, which)
        assert (run.finished, len(run.history)) == (False, 2)
        predict(run, validation[0])
    assert same(finish(fit(method, train, validation, out=out, resume=True))[1], whole)


@pytest.mark.parametrize("mining", ["mhim", "mhim2"])
@pytest.mark.parametrize("epochs", [0, 2, 4, 5])
def test_resumed_in_either_stage(mining: str, epochs: int, train, validation, tmp_path: Path) -> None:
    """Interrupted in the plain run (0, 2), right after it (4), or in the training that starts from it (5)."""
    method, out = quick("mhim_abmil_c16", mining__kind=mining), tmp_path / "run"
    _, whole = finish(fit(method, train, validation, seed=7))
    with pytest.raises(Cancelled):
        finish(fit(method, train, validation, seed=7, out=out, on_bag=Stop(12 * epochs + 5)))
    assert not Run.load(out).finished
    if epochs < 4:
        with pytest.raises(TrainingError, match=r"other settings \(mining.momentum\)"):
            next(fit(method.with_settings({"mining.momentum": 0.1}), train, validation, seed=7, out=out, resume=True))
    reports, resumed = finish(fit(method, train, validation, seed=7, out=out, resume=True))
    stages = [("plain", epoch) for epoch in range(1, 5)] + [("", epoch) for epoch in range(1, 5)]
    assert [(report.stage, report.epoch) for report in reports] == stages[epochs:]
    assert same(resumed, whole)
    told = [note for report in reports if not report.stage for note in report.notes]
    assert [note for note in told if "teacher" in note] == [note for note in resumed.notes if "teacher" in note]
    assert any(note.startswith("The teacher starts from run/plain") for note in told)
    with pytest.raises(TrainingError, match="already holds a run"):
        next(fit(method, train, validation, seed=7, out=out))


def test_cancelled_in_the_first_epoch(train, validation, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Cancelled):
        next(fit(quick(), train, validation, out=out, on_bag=Stop(3)))
    with pytest.raises(TrainingError, match=r"best.safetensors is missing: no epoch"):
        predict(Run.load(out), validation[0])
    _, resumed = finish(fit(quick(), train, validation, out=out, resume=True))
    assert same(resumed, finish(fit(quick(), train, validation))[1])


def test_killed_between_the_two_checkpoints(train, validation, tmp_path: Path) -> None:
    """best is of epoch 2, last still of epoch 1: epoch 2 comes again, the same."""
    out = tmp_path / "run"
    interrupt(quick(), train, validation, out, 1)
    shutil.copy(out / "last.safetensors", tmp_path / "kept")
    interrupt_more = fit(quick(), train, validation, out=out, seed=7, resume=True)
    next(interrupt_more)
    interrupt_more.close()
    shutil.copy(tmp_path / "kept", out / "last.safetensors")
    _, resumed = finish(fit(quick(), train, validation, out=out, seed=7, resume=True))
    assert same(resumed, finish(fit(quick(), train, validation, seed=7))[1])


def test_resuming_a_finished_run_gives_it(train, validation, tmp_path: Path) -> None:
    _, run = finish(fit(quick(), train, validation, out=tmp_path / "run"))
    reports, again = finish(fit(quick(), train, validation, out=tmp_path / "run", resume=True))
    assert reports == []
    assert same(run, again)
    assert again.history == run.history


def test_resume_without_a_checkpoint_starts(train, validation, tmp_path: Path) -> None:
    assert next(fit(quick(), train, validation, out=tmp_path / "new", resume=True)).epoch == 1
    with pytest.raises(TrainingError, match="no folder was given"):
        next(fit(quick(), train, validation, resume=True))


def test_resume_wants_the_same_training(train, validation, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt(quick(), train, validation, out, 1)
    with pytest.raises(TrainingError, match="already holds a run; resume it"):
        next(fit(quick(), train, validation, out=out))
    with pytest.raises(TrainingError, match=r"other settings \(supervision.margin\)"):
        next(fit(quick(supervision__margin=1.0), train, validation, out=out, seed=7, resume=True))
    with pytest.raises(TrainingError, match="has seed 7, not 8"):
        next(fit(quick(), train, validation, out=out, seed=8, resume=True))
    with pytest.raises(TrainingError, match="other training or validation slides"):
        next(fit(quick(), train[:-1], validation, out=out, seed=7, resume=True))


class TestFolder:
    def test_files(self, train, validation, tmp_path: Path) -> None:
        provenance = {"features": {"encoder": "texture", "dim": np.int64(6)}, "where": Path("a") / "b"}
        _, run = finish(fit(quick(), train, validation, out=tmp_path / "run", provenance=provenance, seed=3))
        assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
        facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
        assert facts["schema_version"] == 1
        assert facts["seed"] == 3
        assert facts["finished"]
        assert facts["provenance"]["features"] == {"encoder": "texture", "dim": 6}
        assert {"torch", "numpy", "python", "napari_mil"} <= facts["versions"].keys()
        assert facts["best"]["epoch"] == facts["best_epoch"] == run.best_epoch
        assert Method.model_validate(facts["method"]) == quick()
        with (tmp_path / "run" / "epochs.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
        assert float(rows[2]["rank"]) == run.history[2]["parts"]["rank"]

    def test_read_again(self, train, validation, tmp_path: Path) -> None:
        _, run = finish(fit(quick(), train, validation, out=tmp_path / "run"))
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        loaded = Run.load(tmp_path / "elsewhere")
        assert same(run, loaded)
        one, other = predict(run, validation[1]), predict(loaded, validation[1])
        np.testing.assert_array_equal(one.attention, other.attention)
        assert not same(Run.load(tmp_path / "elsewhere", "last"), loaded) or loaded.best_epoch == 4
        assert loaded.to_dict() == run.to_dict()

    def test_save(self, train, validation, tmp_path: Path) -> None:
        _, run = finish(fit(quick(), train, validation))
        assert run.folder is None
        run.save(tmp_path / "saved")
        assert same(Run.load(tmp_path / "saved"), run)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        run.build()
        assert torch.equal(torch.get_rng_state(), before)

    def test_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.json"
        write_bytes(path, b"old")
        monkeypatch.setattr("os.replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(TrainingError, match=r"a.json cannot be written: No space left.*can be resumed"):
            write_bytes(path, b"new")
        assert path.read_bytes() == b"old"

    def test_a_file_held_open_elsewhere_is_tried_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import os

        real, tries = os.replace, []

        def replace(a: Path, b: Path) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise PermissionError
            real(a, b)

        monkeypatch.setattr("os.replace", replace)
        monkeypatch.setattr("time.sleep", lambda s: None)
        write_bytes(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
        monkeypatch.setattr("os.replace", lambda a, b: (_ for _ in ()).throw(PermissionError()))
        with pytest.raises(TrainingError, match="held open by another program"):
            write_bytes(tmp_path / "a", b"newer")


class TestDamaged:
    @pytest.fixture
    def folder(self, train, validation, tmp_path: Path) -> Path:
        finish(fit(quick(training__epochs=1), train, validation, out=tmp_path / "run"))
        return tmp_path / "run"

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"holds no run: run\.json is missing"):
            Run.load(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": "x"}'])
    def test_run_json(self, folder: Path, text: str) -> None:
        (folder / "run.json").write_text(text)
        with pytest.raises(TrainingError, match=r"run.json is not a run of napari-mil, or is damaged"):
            Run.load(folder)

    def test_newer_format_and_unknown_settings(self, folder: Path) -> None:
        facts = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**facts, "schema_version": 99}))
        with pytest.raises(TrainingError, match="newer napari-mil"):
            Run.load(folder)
        facts["method"]["training"]["warp"] = 9
        (folder / "run.json").write_text(json.dumps(facts))
        with pytest.raises(TrainingError, match=r"no setting 'training.warp'"):
            Run.load(folder)

    @pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
    def test_truncated_weights(self, folder: Path, keep: float) -> None:
        path = folder / "best.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
        with pytest.raises(TrainingError, match=r"best.safetensors is damaged.*other checkpoint"):
            Run.load(folder).build()

    def test_weights_of_another_network(self, folder: Path) -> None:
        weights = load_file(folder / "best.safetensors")
        save_file({key: value for key, value in weights.items() if key != "score.bias"}, folder / "best.safetensors")
        with pytest.raises(TrainingError, match=r"do not fit the network.*score.bias"):
            Run.load(folder).build()

    def test_checkpoint_that_is_none(self, folder: Path, train, validation) -> None:
        save_file({"a": torch.zeros(1)}, folder / "last.safetensors")
        with pytest.raises(TrainingError, match="not a checkpoint of a training"):
            next(fit(quick(training__epochs=1), train, validation, out=folder, resume=True))

    def test_which(self, folder: Path) -> None:
        with pytest.raises(TrainingError, match="'final' was asked for"):
            Run.load(folder, "final")


class TestPredict:
    @pytest.fixture
    def run(self, train, validation) -> Run:
        return finish(fit(quick(), train, validation, provenance={"features": {"encoder": "texture"}}))[1]

    def test_values(self, run: Run, validation) -> None:
        bag = validation[1]
        prediction = predict(run, bag)
        output = run.build()(bag.tensor())
        np.testing.assert_allclose(prediction.scores, output.scores.detach(), rtol=1e-6)
        np.testing.assert_allclose(prediction.probabilities[1], output.logits.sigmoid().item(), rtol=1e-6)
        # the contributions and the bias make the logit: Σ a_k classifier(h_k) = logit, as Σ a_k = 1
        assert prediction.contribution.sum() == pytest.approx(prediction.logits[0], rel=1e-4)
        alone = run.build().instance_logits(bag.tensor())[:, 0].sigmoid().detach()
        np.testing.assert_allclose(prediction.instance_probability, alone, rtol=1e-6)
        assert prediction.predicted == int(prediction.probabilities[1] > 0.5)
        for array in (prediction.scores, prediction.attention, prediction.logits, prediction.probabilities):
            assert array.dtype == np.float32

    def test_needs_no_label_and_repeats(self, run: Run) -> None:
        bag = Bag("new", np.random.default_rng(0).normal(size=(9, 6)).astype(np.float16))
        model = run.build().train()
        first, second = predict(run, bag, model=model), predict(run, bag)
        np.testing.assert_array_equal(first.scores, second.scores)

    def test_other_features_are_refused(self, run: Run) -> None:
        with pytest.raises(TrainingError, match=r"Slide x has 5 numbers per patch.*trained on 6 \(encoder texture\)"):
            predict(run, Bag("x", np.zeros((3, 5))))

    @pytest.mark.parametrize("preset", ["patch_classifier", "mean", "max", "ab_mil+bce"])
    def test_probability_of_patches(self, preset: str, train, validation) -> None:
        method = quick("ab_mil").with_settings({"supervision.kind": "instance_bce"}) if "+" in preset else quick(preset)
        _, run = finish(fit(method, train, validation))
        prediction = predict(run, validation[1])
        p = prediction.instance_probability
        assert p.shape == (len(validation[1]),)
        assert ((p >= 0) & (p <= 1)).all()
        if preset == "patch_classifier":
            np.testing.assert_allclose(p, 1 / (1 + np.exp(-prediction.scores)), rtol=1e-5)

    def test_two_heads_contribute_their_difference(self, train, validation) -> None:
        _, run = finish(fit(quick("mhim_abmil_c16"), train, validation))
        prediction = predict(run, validation[0])
        assert prediction.contribution.sum() == pytest.approx(prediction.logits[1] - prediction.logits[0], rel=1e-3)

    def test_untrained_run(self) -> None:
        run = Run(method=quick(), in_dim=6, n_classes=2, classes=("a", "b"))
        with pytest.raises(TrainingError, match="no weights"):
            predict(run, make_bags(1)[0])
