"""Published checkpoints, and what the room imports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from napari_mil.errors import MethodError
from napari_mil.mil import auroc, build_aggregator, convert_state_dict
from napari_mil.mil.metrics import multiclass_auroc

from .conftest import load_golden


@pytest.mark.parametrize(
    ("file", "prefix", "source"), [("rank.npz", "small.sd.", "rank_induction"), ("mhim_train.npz", "w0/", "mhim_v1")]
)
def test_published_weights_load_strictly(file: str, prefix: str, source: str) -> None:
    published = {k[len(prefix) :]: torch.from_numpy(v) for k, v in load_golden(file).items() if k.startswith(prefix)}
    name, options, state = convert_state_dict(published, source)
    in_dim = {"rank_induction": 48, "mhim_v1": 40}[source]
    build_aggregator(name, in_dim, 2, **options).load_state_dict(state, strict=True)
    with pytest.raises(MethodError, match=r"missing .*unknown nothing"):
        convert_state_dict(dict(list(published.items())[1:]), source)
    with pytest.raises(MethodError, match=r"missing nothing; unknown layer1.norm.weight"):
        convert_state_dict({**published, "layer1.norm.weight": torch.ones(1)}, source)
    with pytest.raises(MethodError, match="no published source 'clam'"):
        convert_state_dict(published, "clam")


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
        "from napari_mil.mil.fit import _Trainer\n"
        "from napari_mil.mil import fit, predict\n"
        "import napari_mil\n"
        "assert callable(fit) and callable(predict) and napari_mil.fit is fit\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
