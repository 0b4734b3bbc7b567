"""bfloat16, and training that repeats bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from napari_mil.errors import Cancelled, TrainingError
from napari_mil.mil import Bag, Method, fit, predict
from napari_mil.mil.configs import TrainingConfig
from napari_mil.mil.devices import CUBLAS, deterministic
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.objective import Objective

from .conftest import Stop, finish, make_bags, quick, same

HALF = {"training.precision": "bf16"}


def learner(method: Method, train: list[Bag]) -> Learner:
    torch.manual_seed(0)
    model = method.build(train[0].dim)
    return Learner(model, Objective(method, train, 0), build_optimizer(method.training, model), torch.Generator())


@pytest.mark.parametrize("preset", ["rank_induction", "attention_induction", "ab_mil", "patch_classifier"])
def test_weights_optimiser_and_losses_stay_float32(preset: str, train: list[Bag]) -> None:
    made = learner(quick(preset).with_settings(HALF), train)
    seen = []
    made.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    loss = made.loss(train[1])
    assert loss.total.dtype == torch.float32
    made.train_pass(train[:4], TrainingConfig(), lambda i: None)
    assert set(seen) == {torch.bfloat16}, "the features are cast once"
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
    states = made.optimizer.state_dict()["state"].values()
    assert {v.dtype for state in states for v in state.values() if torch.is_tensor(v)} == {torch.float32}


@pytest.mark.parametrize("preset", ["rank_induction", "mhim_abmil_c16"])
def test_bf16_is_near_fp32_and_predicts_in_fp32(preset: str, train: list[Bag], validation: list[Bag]) -> None:
    full, run = finish(fit(quick(preset), train, validation))
    half, other = finish(fit(quick(preset).with_settings(HALF), train, validation))
    assert half[0].val_loss != full[0].val_loss
    for one, two in zip(full, half, strict=True):
        assert two.val_loss == pytest.approx(one.val_loss, rel=0.05)
    one, two = predict(run, validation[1]), predict(other, validation[1])
    assert two.probabilities == pytest.approx(one.probabilities, abs=0.02)
    x = validation[1].tensor()
    with torch.no_grad():
        exact = other.build().eval()(x).logits.numpy()
    assert two.logits == pytest.approx(exact, abs=1e-6), "a prediction is always in float32"


def test_teacher_and_student_are_in_bf16(train: list[Bag], validation: list[Bag]) -> None:
    """What the teacher ranks by changes with the precision: it is not left in float32."""
    method = quick("mhim_abmil_c16").with_settings(HALF | {"mining.consistency_weight": 1.0})
    reports, run = finish(fit(method, train, validation))
    assert {value.dtype for value in run.weights.values()} == {torch.float32}
    assert all(0 < r.parts["consistency"] < 100 for r in reports if not r.stage)


@pytest.fixture
def _flags() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("before", [(False, False), (True, True)])
def test_repeats_bit_for_bit_and_leaves_torch_as_it_was(
    before: tuple[bool, bool], train: list[Bag], validation: list[Bag]
) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    method = quick().with_settings({"training.deterministic": True})
    inside: list[bool] = []

    def look(done: int, total: int) -> None:
        inside.append(torch.are_deterministic_algorithms_enabled())
        inside.append(not torch.is_deterministic_algorithms_warn_only_enabled())

    _, one = finish(fit(method, train, validation, on_bag=look))
    assert all(inside)
    for _ in fit(method, train, validation):  # between the epochs, too
        assert torch.are_deterministic_algorithms_enabled() == before[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled() == before[1]
        assert torch.utils.deterministic.fill_uninitialized_memory
        break
    with pytest.raises(Cancelled):
        finish(fit(method, train, validation, on_bag=Stop(2)))
    assert torch.are_deterministic_algorithms_enabled() == before[0]
    _, other = finish(fit(method, train, validation))
    assert same(one, other)


def test_a_card_in_use_without_the_setting_of_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda")
    monkeypatch.delenv(CUBLAS, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with (
        pytest.raises(TrainingError, match=f"{CUBLAS} before the card is used: set it to :4096:8"),
        deterministic(True, card),
    ):
        pass
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with deterministic(True, card):
        assert os.environ[CUBLAS] == ":4096:8"
    with deterministic(True, card):
        pass
    assert not torch.are_deterministic_algorithms_enabled()


def test_large_bags_in_bf16_are_cast_by_chunks(train: list[Bag]) -> None:
    method = quick("ab_mil").with_settings(HALF | {"training.recompute": "always"})
    made = learner(method, train)
    half = Bag("h", make_bags(2)[1].features.astype("float16"), None, 1)
    assert made.features(half).dtype == torch.float16
    assert made.features(half).data_ptr() == torch.from_numpy(half.features).data_ptr(), "no copy"
    assert torch.isfinite(made.loss(half).total)
