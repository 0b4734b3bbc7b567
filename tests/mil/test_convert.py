"""Published checkpoints, and what the room imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil.errors import MethodError
from napari_mil.mil import auroc, build_aggregator, convert_state_dict
from napari_mil.mil.convert import read_published
from napari_mil.mil.metrics import multiclass_auroc

from .conftest import load_golden


def published(file: str, prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: torch.from_numpy(v) for k, v in load_golden(file).items() if k.startswith(prefix)}


def gated() -> dict[str, torch.Tensor]:
    plain = published("mhim_train.npz", "w0/")
    inner = {"a.0": (128, 64), "b.0": (128, 64), "c": (1, 128)}
    kept = {key: value for key, value in plain.items() if ".attention." not in key}
    return kept | {f"online_encoder.attention.attention_{key}.weight": torch.randn(s) for key, s in inner.items()}


def dsmil(stem: str = "patch_to_emb.0", classes: int = 2) -> dict[str, torch.Tensor]:
    d, q = 16, 6
    sizes = {stem: (d, 40), "predictor": (classes, d), "online_encoder.i_classifier.0": (classes, d)}
    inner = {"q.0": (q, d), "q.2": (q, q), "v.1": (d, d), "fcc": (classes, classes, d)}
    sizes |= {f"online_encoder.b_classifier.{key}": size for key, size in inner.items()}
    state = {f"{key}.weight": torch.randn(size) for key, size in sizes.items()}
    return state | {f"{key}.bias": torch.randn(size[0]) for key, size in sizes.items()}


def trans_mil(stem: str) -> dict[str, torch.Tensor]:
    plain = published("mhim_train_transmil.npz", "w0/")
    return {key.replace("patch_to_emb.0", stem): value for key, value in plain.items()}


CHECKPOINTS = {
    "rank induction": (lambda: published("rank.npz", "small.sd."), "rank_induction", "ab_mil_rank", {"hidden": 16}),
    "AB-MIL": (lambda: published("mhim_train.npz", "w0/"), "mhim_v1", "ab_mil_mhim", {"gated": False}),
    "gated": (gated, "mhim_v1", "ab_mil_mhim", {"gated": True}),
    "DSMIL": (dsmil, "mhim_v1", "dsmil", {"query_dim": 6, "fusion": "probabilities", "activation": "relu"}),
    "TransMIL": (lambda: trans_mil("patch_to_emb.0"), "mhim_v1", "trans_mil", {"heads": 8, "activation": "relu"}),
    "TransMIL 2": (lambda: trans_mil("feature.0"), "mhim_v2", "trans_mil", {"stem_dim": 64, "activation": "gelu"}),
    "AB-MIL 2": (lambda: published("mhim2_train.npz", "w0/"), "mhim_v2", "ab_mil_mhim", {"activation": "gelu"}),
    "DSMIL 2": (lambda: dsmil("feature.0", 3), "mhim_v2", "dsmil", {"fusion": "logits", "activation": "gelu"}),
}


@pytest.mark.parametrize("which", CHECKPOINTS)
def test_published_weights_load_strictly(which: str) -> None:
    make, source, aggregator, said = CHECKPOINTS[which]
    checkpoint = make()
    name, options, state = convert_state_dict(checkpoint, source)
    assert name == aggregator
    assert said.items() <= options.items()
    classes = max(2, len(state.get("classifier.weight", state.get("instance_classifier.weight"))))
    in_dim = 48 if source == "rank_induction" else 40
    build_aggregator(name, in_dim, classes, **options).load_state_dict(state, strict=True)
    needed = next(key for key in checkpoint if not key.startswith(("merge.", "predictor.")))
    with pytest.raises(MethodError, match=f"missing {needed}; unknown nothing"):
        convert_state_dict({key: value for key, value in checkpoint.items() if key != needed}, source)
    with pytest.raises(MethodError, match=r"missing nothing; unknown layer1.norm.weight, extra"):
        convert_state_dict({**checkpoint, "layer1.norm.weight": torch.ones(1), "extra": torch.ones(1)}, source)
    last = next(new for new in reversed(state) if new.endswith("weight"))
    old = next(key for key, value in checkpoint.items() if value is state[last])
    before = torch.get_rng_state()
    with pytest.raises(MethodError, match=rf"do not go together: .*{last} \("):
        convert_state_dict({**checkpoint, old: torch.cat([state[last]] * 2, dim=1)}, source)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(MethodError, match="no published source 'clam'"):
        convert_state_dict(checkpoint, "clam")


def test_version_1_has_no_recycle_network() -> None:
    with pytest.raises(MethodError, match=r"unknown merge.norm.weight"):
        convert_state_dict({**dsmil(), "merge.norm.weight": torch.ones(16)}, "mhim_v1")


class TestReadPublished:
    def test_weights(self, tmp_path: Path) -> None:
        state = dsmil()
        torch.save(state, tmp_path / "plain.pt")
        torch.save({"epoch": 3, "model": state}, tmp_path / "nested.pt")
        for name in ("plain.pt", "nested.pt"):
            read = read_published(tmp_path / name)
            assert read.keys() == state.keys()
            assert all(torch.equal(read[key], state[key]) for key in state)

    def test_refusals(self, tmp_path: Path) -> None:
        with pytest.raises(MethodError, match="There is no file"):
            read_published(tmp_path / "none.pt")
        torch.save(torch.nn.Linear(2, 1), tmp_path / "whole.pt")
        (tmp_path / "text.pt").write_text("no weights")
        for name in ("whole.pt", "text.pt"):
            with pytest.raises(MethodError, match="cannot be read as weights alone"):
                read_published(tmp_path / name)
        torch.save({"epoch": 3}, tmp_path / "facts.pt")
        with pytest.raises(MethodError, match="holds no state dict"):
            read_published(tmp_path / "facts.pt")


class TestAuroc:
    def test_by_counting_pairs(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            y, s = rng.integers(0, 2, 30), rng.integers(0, 8, 30)
            d = s[y == 1][:, None] - s[y == 0][None]
            assert auroc(y, s) == pytest.approx(((d > 0) + 0.5 * (d == 0)).mean())

    def test_one_class(self) -> None:
        assert auroc([1, 1], [0.2, 0.3]) is None
        assert auroc([], []) is None

    def test_many_classes(self) -> None:
        p = np.eye(3)[[0, 1, 2, 0]]
        assert multiclass_auroc([0, 1, 2, 0], p) == 1.0
        assert multiclass_auroc([0, 1, 1, 0], p) == pytest.approx((1 + 0.75) / 2)
        assert multiclass_auroc([1, 1], np.full((2, 2), 0.5)) is None


def test_describing_a_method_needs_no_torch() -> None:
    code = (
        "import sys; from napari_mil.mil import Bag, Method, EpochReport, Prediction, Run, PresetInfo, auroc\n"
        "import numpy as np\n"
        "Bag('a', np.ones((2, 3), np.float32)); Method.preset('rank_induction').with_settings({'training.epochs': 3})\n"
        "Method.presets(); Method.model_json_schema()\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_are_not_hidden_by_the_modules_of_their_names() -> None:
    code = (
        "import napari_mil.mil.fit, napari_mil.mil.predict\n"
        "from napari_mil.mil.trainer import Trainer\n"
        "from napari_mil.mil import fit, predict\n"
        "import napari_mil\n"
        "assert callable(fit) and callable(predict) and napari_mil.fit is fit\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
