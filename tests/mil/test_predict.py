"""What a prediction says of each patch: the class's column, what it adds, its probability by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mil.mil import Aggregator, Bag, Method, Run, fit, predict
from napari_mil.mil.aggregators import BagOutput

from .conftest import finish, make_bags
from .test_every_aggregator import NAMES, VARIANTS

OWN_TERMS = [name for name in NAMES if name != "trans_mil"]
CLASSES = {"kind": "multiclass", "classes": ["none", "a", "b"]}


def trained(name: str, head: str = "two", **parts: object) -> tuple[Run, Bag]:
    options = {} if name == "patch_classifier" else {"binary_head": head}
    method = Method(
        aggregator={"name": name, **VARIANTS[name], **options},
        training={"epochs": 1, "learning_rate": 0.02, "accumulate": 2},
        **parts,
    )
    bags = make_bags(6, seed=1)
    if method.n_classes == 3:
        bags[5] = replace(bags[5], label=2)
    _, run = finish(fit(method, bags, make_bags(4, seed=2, prefix="v")))
    return run, make_bags(2, seed=3, prefix="new")[1]


def outputs(model: Aggregator, bag: Bag) -> tuple[BagOutput, torch.Tensor]:
    x = torch.from_numpy(bag.features)
    with torch.no_grad():
        return model.eval()(x), x


def column_of(values: torch.Tensor, column: int) -> np.ndarray:
    return (values if values.ndim == 1 else values[:, min(column, values.shape[1] - 1)]).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["single", "two"])
def test_two_classes_speak_of_the_positive_one(name: str, head: str) -> None:
    run, bag = trained(name, head)
    prediction = predict(run, bag)
    model = run.build()
    output, x = outputs(model, bag)
    np.testing.assert_allclose(prediction.attention, column_of(output.attention, 1), rtol=1e-6)
    np.testing.assert_allclose(prediction.scores, column_of(output.scores, 1), rtol=1e-6)
    own = model.instance_probabilities(x)
    if own is None:
        assert prediction.instance_probability is None
    else:
        np.testing.assert_allclose(prediction.instance_probability, own[:, 1].detach(), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "patch_classifier"])
@pytest.mark.parametrize("predicted", [0, 1, 2])
def test_of_several_classes_the_predicted_one(name: str, predicted: int) -> None:
    run, bag = trained(name, task=CLASSES)
    model = favouring(run, predicted)
    prediction = predict(run, bag, model=model)
    assert prediction.predicted == predicted
    output, x = outputs(model, bag)
    np.testing.assert_allclose(prediction.attention, column_of(output.attention, predicted), rtol=1e-6)
    np.testing.assert_allclose(prediction.scores, column_of(output.scores, predicted), rtol=1e-6)
    own, terms = model.instance_probabilities(x), model.contributions(x, output)
    if own is not None:
        np.testing.assert_allclose(prediction.instance_probability, own[:, predicted].detach(), rtol=1e-6)
    if terms is not None:
        np.testing.assert_allclose(prediction.contribution, terms[:, predicted].detach(), rtol=1e-6)


def favouring(run: Run, column: int) -> Aggregator:
    """The network with a head that favours a class."""
    model = run.build()
    heads = {"dsmil": "bag_classifier", "dtfd": "second_classifier"}
    head = getattr(model, heads.get(run.method.aggregator.name, "classifier"))
    with torch.no_grad():
        head.bias.zero_()[column] = 50.0
    return model


@pytest.mark.parametrize("head", ["single", "two"])
@pytest.mark.parametrize("name", OWN_TERMS)
def test_contributions_add_up_to_the_slide(name: str, head: str) -> None:
    """To the logit, or to the difference of two logits; DSMIL: to the mean of its two streams'."""
    run, bag = trained(name, head)
    contribution = predict(run, bag).contribution
    output, _ = outputs(run.build(), bag)
    logits = (output.extras["bag"] + output.extras["max"]) / 2 if name == "dsmil" else output.logits
    if name == "max":  # each logit has a patch of its own
        assert 1 <= np.count_nonzero(contribution) <= len(logits)
    wanted = logits[0] if len(logits) == 1 else logits[1] - logits[0]
    assert contribution.sum() == pytest.approx(wanted.item(), abs=1e-5)


def test_no_contribution_where_layers_lie_between() -> None:
    run, bag = trained("trans_mil")
    assert predict(run, bag).contribution is None


@pytest.mark.parametrize("distillation", ["max", "max_min", "mas"])
def test_only_distilled_patches_contribute(distillation: str) -> None:
    method = Method(aggregator={"name": "dtfd", **VARIANTS["dtfd"], "distillation": distillation, "pseudo_bags": 3})
    method = method.with_settings({"training.epochs": 1})
    _, run = finish(fit(method, make_bags(4, seed=1), make_bags(2, seed=2, prefix="v")))
    prediction = predict(run, make_bags(1, seed=3, prefix="new")[0])
    assert np.count_nonzero(prediction.contribution) == (6 if distillation == "max_min" else 3)
    assert np.count_nonzero(prediction.attention) == 12


@pytest.mark.parametrize("name", ["ab_mil", "dsmil", "trans_mil", "clam_sb", "clam_mb", "dtfd", "patch_classifier"])
def test_patch_loss_makes_scores_probabilities(name: str) -> None:
    run, bag = trained(name, supervision={"kind": "instance_bce", "bag_weight": 1.0})
    prediction = predict(run, bag)
    np.testing.assert_allclose(
        prediction.instance_probability, 1 / (1 + np.exp(-prediction.scores.astype(float))), rtol=1e-5
    )


@pytest.mark.parametrize("predicted", [0, 2])
def test_patch_loss_with_classes_speaks_of_lesions(predicted: int) -> None:
    """A slide that is predicted free of lesions: of the highest class that has lesions."""
    run, bag = trained("dsmil", task=CLASSES, supervision={"kind": "instance_bce", "bag_weight": 1.0})
    model = favouring(run, predicted)
    prediction = predict(run, bag, model=model)
    output, _ = outputs(model, bag)
    scores = output.scores[:, 1:].amax(1) if predicted == 0 else output.scores[:, 2]
    np.testing.assert_allclose(prediction.instance_probability, torch.sigmoid(scores), rtol=1e-5)
