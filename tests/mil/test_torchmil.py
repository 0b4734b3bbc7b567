"""Models of torchmil as aggregators: with a stand-in for the package, and with the package itself where it is."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mil.errors import MethodError
from napari_mil.mil import Method, Run, fit, plugins, predict

from .conftest import finish, make_bags


class ABMIL(nn.Module):
    """Attention pooling as torchmil has it: raw attention, one logit, a batch of bags."""

    def __init__(self, in_shape: tuple[int, ...] | None = None, att_dim: int = 128, feat_ext: object = None) -> None:
        super().__init__()
        assert in_shape is not None
        self.hidden, self.out = nn.Linear(in_shape[0], att_dim), nn.Linear(att_dim, 1)
        self.classifier = nn.Linear(in_shape[0], 1)

    def forward(self, X: Tensor, mask: Tensor | None = None, return_att: bool = False) -> object:
        assert X.ndim == 3
        raw = self.out(torch.tanh(self.hidden(X)))[..., 0]
        logit = self.classifier((torch.softmax(raw, 1)[:, None] @ X)[:, 0])[:, 0]
        return (logit, raw) if return_att else logit


class Graph(ABMIL):
    def forward(self, X: Tensor, adj: Tensor, return_att: bool = False) -> object:
        raise AssertionError


class Silent(ABMIL):
    def forward(self, X: Tensor, mask: Tensor | None = None) -> object:
        raise AssertionError


class Sampled(ABMIL):
    def forward(self, X: Tensor, return_att: bool = False, return_samples: bool = False) -> object:
        raise AssertionError


class Headless(ABMIL):
    def __init__(self, in_shape: tuple[int, ...] | None = None) -> None:
        super().__init__(in_shape)
        self.reader = self.classifier
        del self.classifier


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point, as pyproject.toml has it, whatever is installed here."""
    lines = (Path(__file__).parents[2] / "pyproject.toml").read_text().splitlines()
    line = lines[lines.index('[project.entry-points."napari_mil.aggregators"]') + 1]
    name, _, value = line.partition(" = ")
    point = EntryPoint(name, value.strip('"'), plugins.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, announced: None) -> None:
    package, models = ModuleType("torchmil"), ModuleType("torchmil.models")
    for kind in (ABMIL, Graph, Silent, Sampled, Headless):
        setattr(models, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "torchmil", package)
    monkeypatch.setitem(sys.modules, "torchmil.models", models)


def method(model: str = "ABMIL", supervision: str = "none", mining: object = "none", **options: object) -> Method:
    return Method(
        aggregator={"name": "torchmil", "custom_options": {"model": model, **options}},
        supervision=supervision,
        mining=mining,
        training={"epochs": 20, "learning_rate": 0.02, "accumulate": 2},
    )


def trained(wanted: Method, folder: Path) -> tuple[float, Run]:
    """First training loss / last, and the run read from its folder again."""
    train, validation = make_bags(8, seed=1, prefix="t"), make_bags(4, seed=2, prefix="v")
    reports, _ = finish(fit(wanted, train, validation, out=folder))
    return reports[-1].train_loss / reports[0].train_loss, Run.load(folder)


@pytest.mark.parametrize(("supervision", "mining"), [("none", "none"), ("rank", "none"), ("rank", "copy")])
def test_a_stand_in_trains_predicts_and_paints(stand_in: None, tmp_path: Path, supervision: str, mining: str) -> None:
    mhim = {"kind": "mhim", "teacher": "copy", "random": 0.2} if mining == "copy" else "none"
    shrunk, run = trained(method(supervision=supervision, mining=mhim, att_dim=4), tmp_path)
    assert shrunk < 0.7
    (bag,) = make_bags(1, seed=3)
    seen = predict(run, bag)
    model = run.build().eval()
    logit, raw = model.model(bag.tensor()[None], return_att=True)
    assert seen.probabilities[1] == pytest.approx(torch.sigmoid(logit).item(), abs=1e-6)
    torch.testing.assert_close(torch.from_numpy(seen.scores), raw[0].detach())
    torch.testing.assert_close(torch.from_numpy(seen.attention), torch.softmax(raw[0], 0).detach())
    output = model(bag.tensor())
    torch.testing.assert_close(model.model.classifier(output.embedding), output.logits)


def test_what_does_not_fit_is_refused_in_a_sentence(stand_in: None) -> None:
    for options, words in (
        ({"model": "Nothing"}, "no model 'Nothing'"),
        ({"model": "Graph"}, "needs adj besides"),
        ({"model": "Silent"}, "returns no attention"),
        ({"model": "Sampled"}, "draws samples"),
        ({"model": "Headless"}, "no classifier"),
        ({"att_dimm": 3}, "no setting 'att_dimm'; it has att_dim"),
        ({"att_dim": "wide"}, "cannot be built so"),
    ):
        with pytest.raises(MethodError, match=words):
            method(**options).build(6)
    three = method().model_copy(update={"task": {"kind": "multiclass", "classes": ["a", "b", "c"]}})
    with pytest.raises(MethodError, match="two classes apart, and this task has 3"):
        three.build(6, n_classes=3)


def test_without_the_package_it_says_how_to_get_it(announced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmil", None)
    monkeypatch.setitem(sys.modules, "torchmil.models", None)
    with pytest.raises(MethodError, match=r"pip install 'napari-mil\[torchmil\]'"):
        method().build(6)


@pytest.fixture
def real(announced: None) -> None:
    pytest.importorskip("torchmil.models", exc_type=ImportError)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("ABMIL", {"att_dim": 8, "gated": True}),
        ("DSMIL", {"att_dim": 8, "nonlinear_q": True}),
        ("TransformerABMIL", {"pool_att_dim": 8, "transf_att_dim": 8, "transf_n_heads": 2}),
        ("TransMIL", {"att_dim": 8, "n_heads": 2, "n_landmarks": 4}),
    ],
)
def test_torchmil_itself(real: None, tmp_path: Path, model: str, options: dict) -> None:
    shrunk, run = trained(method(model, **options), tmp_path)
    assert shrunk < 0.9
    (bag,) = make_bags(1, seed=3)
    seen, network = predict(run, bag), run.build().eval()
    assert seen.attention.sum() == pytest.approx(1, abs=1e-5)
    assert seen.attention.min() >= 0
    logit = network.model.predict(bag.tensor()[None], return_inst_pred=False)
    logit = logit[0] if isinstance(logit, tuple) else logit
    assert seen.probabilities[1] == pytest.approx(torch.sigmoid(logit).item(), abs=1e-5)


def test_both_streams_of_dsmil_are_learned_from(real: None) -> None:
    x, label = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    network = method("DSMIL", att_dim=8).build(6).eval()
    ours = network.loss(network(x), lambda z: F.binary_cross_entropy_with_logits(z, label), 1)
    _, parts = network.model.compute_loss(label, x[None])
    torch.testing.assert_close(ours, sum(parts.values()))


def test_what_cannot_be_of_torchmils_own_models(real: None) -> None:
    refused = {
        "PatchGCN": "needs adj",
        "SETMIL": "needs coords",
        "DTFDMIL": "returns no attention",
        "CLAM_SB": "clam_sb",
    }
    for model, words in refused.items():
        with pytest.raises(MethodError, match=words):
            method(model).build(6)
