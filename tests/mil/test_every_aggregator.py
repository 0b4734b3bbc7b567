"""What every aggregator has to keep: the contract, order, gradients, sizes, extremes, precision, training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from napari_mil.mil import Aggregator, Bag, Method, Prediction, build_aggregator, fit, predict
from napari_mil.mil.aggregators import BagOutput
from napari_mil.mil.method import models_of
from napari_mil.mil.plugins import BUILT_IN

from .conftest import finish, make_bags

STEM = {"stem_dim": 8, "attention_dim": 4}
VARIANTS = {
    "ab_mil": {"attention_dim": 4},
    "ab_mil tabular": {"stem": "tabular", "gated": True, "adaptive_weight": 2.0},
    "ab_mil_rank": {"hidden": 4, "threshold": 1.0},
    "ab_mil_mhim": {**STEM, "gated": True, "activation": "gelu"},
    "dsmil": {"stem_dim": 8, "query_dim": 4},
    "dsmil logits": {"stem_dim": 8, "query_dim": 4, "fusion": "logits", "threshold": 0.9, "value_dropout": 0.2},
    "trans_mil": {"stem_dim": 8, "heads": 2, "landmarks": 4},
    "clam_sb": {**STEM, "instance_patches": 3},
    "clam_mb": {**STEM, "instance_patches": 2, "exclusive": True, "threshold": 0.9, "temperature": 0.5},
    "dtfd": STEM,
    "dtfd afs": {**STEM, "distillation": "afs", "threshold": 0.9},
    "mean": {"stem_dim": 8},
    "max": {"stem_dim": 8},
    "patch_classifier": {"top_k": 3},
}
NAMES = [name for name in VARIANTS if " " not in name]
CONFIGS = {config.model_fields["name"].default: config for config in models_of("aggregator")}
BY_ORDER = {"trans_mil", "dtfd", "dtfd afs"}
"""Place of a patch, or the split into pseudo-bags, goes by the order of the bag."""
WITH_SCORES = [name for name in NAMES if CONFIGS[name].has_scores]
ATTENDING = [name for name in WITH_SCORES if CONFIGS[name].has_attention]
HEADS = [(2, "two"), (2, "single"), (3, "two")]
SHORT = {"epochs": 2, "accumulate": 2, "learning_rate": 0.01}
FIRST_FOUR = ("logits", "scores", "attention", "embedding")


def network(variant: str, n_classes: int = 2, head: str = "two", seed: int = 0, **options: object) -> Aggregator:
    name = variant.split()[0]
    more = {} if name == "patch_classifier" else {"binary_head": head}
    torch.manual_seed(seed)
    return build_aggregator(name, 6, n_classes, **{**VARIANTS[variant], **more, **options}).double().eval()


def bag(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slide_loss(logits: Tensor) -> Tensor:
    if len(logits) == 1:
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    return F.cross_entropy(logits[None], torch.tensor([1]))


def check_finite(output: BagOutput) -> None:
    for name in FIRST_FOUR:
        assert torch.isfinite(getattr(output, name)).all(), name


def test_none_is_missing_here() -> None:
    assert set(NAMES) == set(BUILT_IN)


CONTRACTS = [(v, *head) for v in VARIANTS for head in (HEADS if v != "patch_classifier" else [(2, "single")])]


@pytest.mark.parametrize(("variant", "n_classes", "head"), CONTRACTS)
@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_contract(variant: str, n_classes: int, head: str, n: int) -> None:
    model, x = network(variant, n_classes, head), bag(n)
    output = model(x)
    c = model.n_logits
    per_class = CONFIGS[variant.split()[0]].per_class
    assert output.logits.shape == (c,)
    assert output.scores.shape == output.attention.shape == ((n, c) if per_class else (n,))
    assert output.embedding.ndim == (2 if per_class else 1)
    check_finite(output)
    assert (output.attention >= 0).all()
    sums = output.attention.sum(dim=0)  # the threshold adds 1e-8 to a sum
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4)
    ranked = model.mining_scores(output)
    assert ranked.shape in ((n,), (VARIANTS[variant].get("heads"), n))
    own = model.instance_probabilities(x)
    if own is not None:
        assert own.shape == (n, n_classes)
        assert ((own >= 0) & (own <= 1)).all()
    terms = model.contributions(x, output)
    if terms is not None:
        assert terms.shape == (n, c)
    if CONFIGS[variant.split()[0]].class_aware:
        assert model.class_aware_logits(model.instances(x), output).shape == (n, c)
    assert torch.isfinite(model.loss(output, slide_loss, 1))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "patch_classifier"])
def test_pooling_of_instances_is_the_whole(variant: str) -> None:
    model, x = network(variant), bag(9)
    for whole, parts in zip(model(x)[:4], model.pool(model.instances(x))[:4], strict=True):
        torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in BY_ORDER])
def test_order_of_patches_does_not_matter(variant: str) -> None:
    model, x = network(variant, 2 if variant == "patch_classifier" else 3), bag(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    one, other = model(x), model(x[order])
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.embedding, other.embedding)
    torch.testing.assert_close(one.scores[order], other.scores)
    torch.testing.assert_close(one.attention[order], other.attention)
    torch.testing.assert_close(model.mining_scores(one)[order], model.mining_scores(other))
    torch.testing.assert_close(model.contributions(x, one)[order], model.contributions(x[order], other))
    torch.testing.assert_close(model.loss(one, slide_loss, 1), model.loss(other, slide_loss, 1))


@pytest.mark.parametrize("variant", ["dtfd", "dtfd afs"])
def test_scores_of_pseudo_bags_do_not_go_by_order(variant: str) -> None:
    model, x = network(variant), bag(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x).scores[order], model(x[order]).scores)
    torch.testing.assert_close(model(x).scores, model.instance_scores(x))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.split()[0] in WITH_SCORES and v != "trans_mil"])
def test_scores_of_patches_by_themselves(variant: str) -> None:
    model, x = network(variant), bag(9)
    alone = torch.cat([model.instance_scores(row[None]) for row in x])
    torch.testing.assert_close(model(x).scores, alone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    """Of logits, scores, attention, embedding and loss, by features and all weights, against finite differences."""
    model = network(variant, 2 if variant == "patch_classifier" else 3, initialisation="torch")
    names = [name for name, _ in model.named_parameters()]

    def outputs(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        output = functional_call(model, dict(zip(names, weights, strict=True)), (x,))
        with_gradient = [value for value in output[:4] if value.requires_grad]
        return (*with_gradient, model.loss(output, slide_loss, 1))

    inputs = (bag(9), *[p.detach().clone() for p in model.parameters()])
    assert torch.autograd.gradcheck(outputs, tuple(t.requires_grad_() for t in inputs), fast_mode=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_five_thousand_patches(variant: str) -> None:
    model = network(variant).float().train()
    output = model(bag(5000).float())
    check_finite(output)
    model.loss(output, slide_loss, 1).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", ["identical", "zeros", "large", "one large", "tiny"])
def test_extremes_stay_numbers(variant: str, case: str) -> None:
    x = bag(12).float()
    x = {
        "identical": x[:1].repeat(12, 1),
        "zeros": x * 0,
        "large": x * 1e3,
        "one large": torch.cat([x[:-1], x[-1:] * 1e3]),
        "tiny": x * 1e-6,
    }[case]
    for head in ("two", "single"):
        model = network(variant, 2, head).float().train()
        output = model(x)
        check_finite(output)
        total = model.loss(output, slide_loss, 1) + output.attention.square().sum() + output.embedding.sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ATTENDING)
def test_scores_of_a_huge_range(name: str) -> None:
    """Weights that give scores of ±1e4: softmaxes and their logarithms saturate without NaN."""
    model = network(name).float()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.startswith(("attention.w", "score", "instance_classifier.", "second_attention.w")):
                weight.mul_(1e5)
    output = model(bag(12).float())
    check_finite(output)
    if name != "trans_mil":  # has no raw scores
        assert output.scores.abs().max() > 1e4
    loss = model.loss(output, slide_loss, 1)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_repeats_and_draws_nothing(variant: str) -> None:
    model, x = network(variant), bag(23)
    state = torch.get_rng_state()
    one = model(x)
    model.train()(x)
    torch.set_rng_state(state)
    other = model.eval()(x)
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one[:4], other[:4], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(model.loss(one, slide_loss, 1), model.loss(other, slide_loss, 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_agrees_roughly(variant: str) -> None:
    model, x = network(variant).float(), bag(40).float()
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(x)
    rough = rough.full_precision()
    for name in FIRST_FOUR:
        assert getattr(rough, name).dtype == torch.float32
    for value in rough.extras.values():
        assert value.dtype == torch.float32
    torch.testing.assert_close(rough.logits, exact.logits, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rough.attention, exact.attention, rtol=0.1, atol=0.02)
    torch.testing.assert_close(model.loss(rough, slide_loss, 1), model.loss(exact, slide_loss, 1), rtol=0.05, atol=0.02)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    model.loss(output.full_precision(), slide_loss, 1).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


LESSONS = {
    "rank": {"supervision": "rank"},
    "rank across slides": {"supervision": {"kind": "rank", "cross_slide_negatives": 3}},
    "attention": {"supervision": "attention"},
    "patches": {"supervision": {"kind": "instance_bce", "bag_weight": 1.0}},
    "mhim": {"mining": {"kind": "mhim", "high": 0.2, "teacher": "copy"}},
    "mhim2": {"mining": {"kind": "mhim2", "high": 0.2, "queries": 2, "teacher": "copy"}},
    "rank and mhim": {"supervision": "rank", "mining": {"kind": "mhim", "low": 0.2, "teacher": "copy"}},
}
TASKS = {
    "two": {},
    "single": {},
    "classes": {"task": {"kind": "multiclass", "classes": ["none", "a", "b"]}},
}
WAYS = [
    (name, lesson, task)
    for name in ATTENDING
    for lesson in LESSONS
    for task in (TASKS if not name.startswith("ab_mil_") else ["two"])
    # refused: scores that depend on the slide's other patches, compared across slides; no term of a patch's own
    if (name, lesson) not in (("trans_mil", "rank across slides"), ("dtfd", "mhim2"))
]


@pytest.mark.parametrize(("name", "lesson", "task"), WAYS)
def test_every_way_to_learn(name: str, lesson: str, task: str) -> None:
    """Supervision and mining of any model; bags of one patch and of identical ones among them."""
    aggregator = {"name": name, **VARIANTS[name], "binary_head": "single" if task == "single" else "two"}
    method = Method(aggregator=aggregator, training=SHORT, **LESSONS[lesson], **TASKS[task])
    train, validation = slides(method.n_classes, 1), slides(method.n_classes, 2)
    reports, run = finish(fit(method, train, validation))
    assert len(reports) == 2
    for slide in validation[1:4]:
        check_prediction(predict(run, slide), len(slide))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "patch_classifier"])
def test_survival(name: str) -> None:
    needed = {
        "dsmil": {"fusion": "logits"},
        "clam_sb": {"instance_weight": 0},
        "clam_mb": {"instance_weight": 0},
        "dtfd": {"distillation": "mas"},
    }
    aggregator = {"name": name, **VARIANTS[name], **needed.get(name, {})}
    method = Method(aggregator=aggregator, training={**SHORT, "monitor": "val_c_index"}, task="survival")
    train, validation = (
        [replace(slide, time=1.0 + index, event=index % 4 > 0) for index, slide in enumerate(slides(2, seed))]
        for seed in (1, 2)
    )
    reports, run = finish(fit(method, train, validation))
    assert len(reports) == 2
    check_prediction(predict(run, validation[2]), len(validation[2]))


@pytest.mark.parametrize("name", NAMES)
def test_training_in_bfloat16(name: str) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        method = Method(aggregator={"name": name, **VARIANTS[name]}, training={**SHORT, "precision": precision})
        reports, _ = finish(fit(method, slides(2, 1), slides(2, 2)))
        losses[precision] = [report.val_loss for report in reports]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses["bf16"] != losses["fp32"]


def check_prediction(prediction: Prediction, n: int) -> None:
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert prediction.attention.shape == prediction.scores.shape == (n,)
    assert prediction.attention.sum() == pytest.approx(1, abs=1e-4)


def slides(n_classes: int, seed: int) -> list[Bag]:
    bags = make_bags(6, seed=seed, prefix=f"{seed}-")
    bags[0] = replace(bags[0], features=bags[0].features[:1], patch_labels=bags[0].patch_labels[:1])
    bags[1] = replace(bags[1], features=bags[1].features[:1].repeat(len(bags[1]), axis=0))
    bags[3] = replace(bags[3], features=bags[3].features[:1], patch_labels=bags[3].patch_labels[:1])
    if n_classes == 3:
        bags[5] = replace(bags[5], label=2)
    return bags
