"""Rank induction, number by number against the published implementation (METHODS §1.1, §2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil.mil import (
    Bag,
    Method,
    attention_target,
    build_aggregator,
    convert_state_dict,
    fit,
    rank_loss,
)
from napari_mil.mil.aggregators import Aggregator
from napari_mil.mil.objective import Objective

RTOL, ATOL = 1e-4, 1e-5
THRESHOLDS = {"T_none": (None, 1.0), "T_0p5": (0.5, 1.0), "T_1": (1.0, 1.0), "T_none_temp_0p5": (None, 0.5)}


def close(got: torch.Tensor | np.ndarray, wanted: np.ndarray, rtol: float = RTOL, atol: float = ATOL) -> None:
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)


def weights(golden: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: torch.from_numpy(v) for key, v in golden.items() if key.startswith(prefix)}


def network(golden: dict[str, np.ndarray], prefix: str, **options: object) -> Aggregator:
    """The published weights in our network, by way of `convert_state_dict`."""
    name, shape, state = convert_state_dict(weights(golden, prefix), "rank_induction")
    model = build_aggregator(name, state["score.weight"].shape[1], 2, **shape, **options)
    model.load_state_dict(state)
    return model.eval()


def check_forward(golden: dict[str, np.ndarray], size: str, tag: str) -> None:
    threshold, temperature = THRESHOLDS[tag]
    model = network(golden, f"{size}.sd.", threshold=threshold, temperature=temperature)
    x = torch.from_numpy(golden[f"{size}.x"])
    output = model(x)
    close(model.instances(x), golden[f"{size}.instance_features"])
    close(output.scores, golden[f"{size}.attention_score"])
    close(output.attention, golden[f"{size}.{tag}.attention_weight"])
    close(output.embedding, golden[f"{size}.{tag}.context"])
    close(output.logits, golden[f"{size}.{tag}.bag_logit"])
    close(output.logits.sigmoid(), golden[f"{size}.{tag}.bag_prob"])
    close(output.attention * model.instance_logits(x)[:, 0], golden[f"{size}.{tag}.contribution"])


@pytest.mark.parametrize("tag", THRESHOLDS)
def test_forward(rank_golden, tag: str) -> None:
    check_forward(rank_golden, "small", tag)


@pytest.mark.parametrize("tag", THRESHOLDS)
def test_forward_at_the_papers_size(shared_data, tag: str) -> None:
    with np.load(shared_data / "golden" / "rank_golden.npz") as file:
        check_forward({key: file[key] for key in file.files if key.startswith("paper.")}, "paper", tag)


def test_identical_patches_keep_their_attention(rank_golden) -> None:
    """Published: a ≡ 0 and a dead gradient. Ours: the attention before the cut."""
    assert (rank_golden["degenerate.T_1.attention_weight"] == 0).all()
    model = network(rank_golden, "small.sd.", threshold=1.0)
    output = model(torch.from_numpy(rank_golden["degenerate.x"]))
    close(output.attention, np.full(8, 1 / 8))
    output.logits.sum().backward()
    assert model.adaptor_in.weight.grad.abs().sum() > 0


class TestRankLoss:
    @pytest.mark.parametrize("case", range(18))
    def test_cases(self, rank_golden, case: int) -> None:
        g = rank_golden
        sigma, margin = float(g["rank.case_sigma"][case]), float(g["rank.case_margin"][case])
        pairs = "symmetric" if g["rank.case_ignore_equal"][case] else "all"
        s = torch.from_numpy(g["rank.s"][0]).double().requires_grad_()
        y = torch.from_numpy(g["rank.y"][0]).to(torch.int16)
        paper = rank_loss(s, y, sigma=sigma, margin=margin)
        close(paper, g["rank.loss_paper_formula_f64"][case], rtol=1e-9, atol=0)
        loss = rank_loss(s, y, sigma=sigma, margin=margin, pairs=pairs)
        close(loss, g["rank.loss_closed_form_f64"][case], rtol=1e-9, atol=0)
        if g["rank.max_abs_exponent_f64"][case] > 12:  # there the published sigmoid saturates
            return
        close(loss, g["rank.loss_reference"][case])
        loss.backward()
        close(s.grad, g["rank.grad_reference"][case])

    @pytest.mark.parametrize("ignore_equal", [True, False])
    def test_among_recorded_samples(self, rank_golden, ignore_equal: bool) -> None:
        g = rank_golden
        index = np.r_[g["rank_sampled.pos_index"], g["rank_sampled.neg_index"]]
        s = torch.from_numpy(g["rank_sampled.s"][0][index])
        y = torch.from_numpy(g["rank_sampled.y"][0][index])
        loss = rank_loss(s, y, pairs="symmetric" if ignore_equal else "all")
        close(loss, g[f"rank_sampled.loss_ignore_equal_{ignore_equal}"])

    def test_examples_of_the_published_docs(self, rank_golden) -> None:
        s = torch.from_numpy(rank_golden["rank.doc_s"])
        for y, wanted in zip(rank_golden["rank.doc_y"], rank_golden["rank.doc_loss"], strict=True):
            if y.min() == y.max():
                continue  # one class only: ours is 0
            close(rank_loss(s, torch.from_numpy(y), pairs="all"), wanted)


OBJECTIVES = {  # tag → label, T, supervision
    "abmil_pos": (1, None, {"kind": "none"}),
    "abmil_neg": (0, None, {"kind": "none"}),
    "rank_released_pos": (1, 1.0, {"kind": "rank", "pairs": "all"}),
    "rank_released_neg": (0, 1.0, {"kind": "rank", "pairs": "all"}),
    "rank_ignore_equal_pos": (1, 1.0, {"kind": "rank", "pairs": "symmetric"}),
    "rank_margin1_pos": (1, 1.0, {"kind": "rank", "pairs": "symmetric", "margin": 1.0}),
    "attind_pos": (1, None, {"kind": "attention"}),
    "attind_neg": (0, None, {"kind": "attention"}),
    "attind_T1_pos": (1, 1.0, {"kind": "attention"}),
    "attind_posweight3_pos": (1, None, {"kind": "attention"}),
}


@pytest.mark.parametrize("tag", OBJECTIVES)
def test_whole_objective_and_its_gradient(rank_golden, tag: str) -> None:
    g = rank_golden
    label, threshold, supervision = OBJECTIVES[tag]
    method = Method(
        aggregator={"name": "ab_mil_rank", "hidden": 16, "threshold": threshold},
        supervision=supervision,
        task={"kind": "binary", "class_weight": 3.0 if "posweight" in tag else "none"},
    )
    model = network(g, "small.sd.", threshold=threshold)
    tissue = g["obj.tissue_pixels"][0]
    bag = Bag("g", g["small.x"], None, label, g["obj.y"][0].astype(np.int8), tissue_pixels=tissue)
    objective = Objective(method, [bag], seed=0)
    loss = objective(model, model(bag.tensor()), bag, torch.Generator())
    close(loss.total, g[f"obj.{tag}.total_loss"])
    # the recorded part is before the class weight
    close(loss.parts["bag"] / objective.weights[label], g[f"obj.{tag}.bag_bce"])
    if f"obj.{tag}.induction_term" in g:
        close(loss.parts[method.supervision.kind], g[f"obj.{tag}.induction_term"])
    loss.total.backward()
    gradients = {f"obj.{tag}.grad.": {name: p.grad for name, p in model.named_parameters()}}
    _, _, wanted = convert_state_dict(weights(g, f"obj.{tag}.grad."), "rank_induction")
    for name, gradient in gradients[f"obj.{tag}.grad."].items():
        close(gradient, wanted[name].numpy())


def test_attention_target(rank_golden) -> None:
    g = rank_golden
    target = attention_target(torch.from_numpy(g["obj.y"][0]), torch.from_numpy(g["obj.tissue_pixels"][0]))
    close(target, g["obj.attention_target"][0])


def test_released_positive_weight(rank_golden) -> None:
    labels = rank_golden["pos_weight.labels"]
    bags = [Bag(str(i), np.ones((2, 2)), None, int(label)) for i, label in enumerate(labels)]
    method = Method(task={"kind": "binary", "class_weight": "released"})
    assert Objective(method, bags, seed=0).weights == (1.0, float(rank_golden["pos_weight.value"]))
    own = Method(task={"kind": "binary", "class_weight": "balanced"})
    assert Objective(own, bags, seed=0).weights == (1.0, 2.0)


TRAININGS = {
    "rank_released": (1.0, {"kind": "rank", "pairs": "all"}),
    "rank_ignore_equal": (1.0, {"kind": "rank", "pairs": "symmetric"}),
    "attind": (None, {"kind": "attention"}),
    "abmil": (None, {"kind": "none"}),
}


@pytest.mark.parametrize("tag", TRAININGS)
def test_five_epochs_of_the_published_trainer(rank_golden, tag: str) -> None:
    g = rank_golden
    threshold, supervision = TRAININGS[tag]
    bags = [
        Bag(f"b{b}", g[f"train.bag{b}.x"], None, int(g[f"train.bag{b}.label"]), g[f"train.bag{b}.y"].astype(np.int8))
        for b in range(8)
    ]
    method = Method(
        aggregator={"name": "ab_mil_rank", "hidden": 6, "threshold": threshold},
        supervision=supervision,
        task={"kind": "binary", "class_weight": "none"},
        training={
            "epochs": 5,
            "learning_rate": 0.01,
            "weight_decay": 1e-5,
            "accumulate": 4,
            "accumulation_tail": "full",
            "sampler": "in_order",
            "patience": None,
        },
    )
    _, _, start = convert_state_dict(weights(g, "train.sd_init."), "rank_induction")
    training = fit(method, bags[:6], bags[6:], initial=start)
    losses = []
    while True:
        try:
            report = next(training)
        except StopIteration as stop:
            run = stop.value
            break
        losses += [report.train_loss, report.val_loss]
    history = g[f"train.{tag}.phase0train1val_and_mean_loss_f64"]
    close(np.array(losses), history[:, 1])
    assert run.best_epoch == 1 + int(np.argmin(history[1::2, 1]))
    _, _, best = convert_state_dict(weights(g, f"train.{tag}.sd_best."), "rank_induction")
    for name, wanted in best.items():
        if name != "score.bias":  # the softmax takes it away: its gradient is rounding
            close(run.weights[name], wanted.numpy())
