"""MHIM-MIL, number by number against the published implementation (METHODS §1.2, §3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil.mil import (
    Bag,
    MaskRatios,
    Method,
    build_aggregator,
    consistency_loss,
    convert_state_dict,
    cosine_schedule,
    mask_instances,
)
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.mining import MhimMiner
from napari_mil.mil.mining.masks import extreme
from napari_mil.mil.objective import Objective

from .conftest import load_golden

MASKS = load_golden("mhim_masks.npz")
CONFIGS = sorted(key.removesuffix("/cfg") for key in MASKS if key.endswith("/cfg"))


def state(golden: dict[str, np.ndarray], prefix: str) -> tuple[str, dict, dict[str, torch.Tensor]]:
    published = {key[len(prefix) :]: torch.from_numpy(v) for key, v in golden.items() if key.startswith(prefix)}
    return convert_state_dict(published, "mhim_v1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_at_full_size(shared_data, dtype: torch.dtype) -> None:
    with np.load(shared_data / "golden" / "mhim_golden_v1_fwd_attn.npz") as file:
        g = {key: file[key] for key in file.files}
    name, options, weights = state(g, "w/")
    model = build_aggregator(name, 1024, 2, **options)
    assert sum(p.numel() for p in model.parameters()) == 591_490
    model.load_state_dict(weights)
    model.eval().to(dtype)
    double = dtype == torch.float64
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if double else {"rtol": 1e-4, "atol": 1e-5}
    for n in (300, 255, 49, 30, 7, 2):
        output = model(torch.from_numpy(g["x"][:n]).to(dtype))
        for key, got in (("logits", 0), ("feat", 3), ("attn", 2), ("attn_raw", 1)):
            wanted = g[f"{key}/n{n}@f64"]
            np.testing.assert_allclose(output[got].detach().numpy(), wanted.reshape(output[got].shape), **tolerance)


class TestMasks:
    @pytest.mark.parametrize("config", [c for c in CONFIGS if c.startswith("ab")])
    def test_same_patches_are_masked(self, config: str) -> None:
        scores = torch.from_numpy(MASKS[f"{config.split('/')[0]}/attn"])
        random, low, high, high_random = MASKS[f"{config}/cfg"]
        draws = [
            torch.from_numpy(MASKS[key].astype(np.int64))
            for key in sorted(MASKS)
            if key.startswith(f"{config}/randperm")
        ]
        bag = mask_instances(scores, MaskRatios(high, low, random, high_random), permutations=draws)
        everything = np.arange(len(scores))
        masked = np.setdiff1d(everything, bag.kept)
        np.testing.assert_array_equal(np.unique(torch.cat(bag[1:])), masked)
        assert (bag.kept.diff() > 0).all()
        if MASKS[f"{config}/len_keep"] == 0:  # published: nothing is left; ours gives back the best of the easy ones
            assert bag.kept.tolist() == [int(scores.argsort()[-2])]
            return
        np.testing.assert_array_equal(masked, MASKS[f"{config}/masked_sorted"])
        assert len(bag.kept) == MASKS[f"{config}/len_keep"]

    @pytest.mark.parametrize("heads", ["mh10", "mh333", "mh1000"])
    def test_votes_of_heads(self, heads: str) -> None:
        scores = torch.from_numpy(MASKS[f"{heads}/attn"])
        for tag, largest in (("h1", True), ("h3", True), ("h10", True), ("l20", False), ("l80", False)):
            if f"{heads}/vote_{tag}" not in MASKS:
                continue
            votes, k = MASKS[f"{heads}/vote_{tag}"], int(MASKS[f"{heads}/vote_{tag}_k"])
            chosen = extreme(scores, k, "vote", largest).numpy()
            assert len(set(chosen.tolist())) == k
            # any tie-break is right: the chosen have the k highest numbers of votes
            np.testing.assert_array_equal(np.sort(votes[chosen])[::-1], np.sort(votes)[::-1][:k])

    def test_counts(self) -> None:
        for i, n in enumerate(MASKS["k_table/N"]):
            for j, ratio in enumerate(MASKS["k_table/ratio"]):
                assert MaskRatios(float(ratio)).high_counts(int(n))[0] == MASKS["k_table/k"][i, j]
                halved = MaskRatios(float(ratio), high_random=0.5).high_counts(int(n))
                assert halved[1] == MASKS["k_table/k_hr0.5"][i, j]


LOSSES = load_golden("mhim_losses.npz")


class TestLossesAndSchedules:
    @pytest.mark.parametrize("name", ["con", "con_dsmil"])
    def test_consistency(self, name: str) -> None:
        student = torch.from_numpy(LOSSES[f"{name}/Fs"]).requires_grad_()
        teacher = torch.from_numpy(LOSSES[f"{name}/Ft"]).requires_grad_()
        loss = consistency_loss(student, teacher, 0.1)
        np.testing.assert_allclose(loss.item(), LOSSES[f"{name}/loss"], rtol=1e-12)
        loss.backward()
        np.testing.assert_allclose(student.grad, LOSSES[f"{name}/dFs"], rtol=1e-9, atol=1e-15)
        assert teacher.grad is None

    @pytest.mark.parametrize("name", ["mrh_0.03", "mrh_0.01", "mm_cos"])
    def test_cosine(self, name: str) -> None:
        start, end, epochs, per_epoch = LOSSES[f"sched/{name}/args"]
        steps = int(epochs * per_epoch)
        values = [cosine_schedule(start, end, t, steps) for t in range(steps)]
        np.testing.assert_allclose(values[:: int(per_epoch)], LOSSES[f"sched/{name}/first_of_epoch"], rtol=1e-9)
        np.testing.assert_allclose(values[-10:], LOSSES[f"sched/{name}/last10"], rtol=1e-9, atol=1e-17)

    def test_learning_rate(self) -> None:
        v1 = [cosine_schedule(2e-4, 0.0, epoch, 200) for epoch in range(200)]
        v2 = [cosine_schedule(2e-4, 1e-7, epoch, 200) for epoch in range(200)]
        np.testing.assert_allclose(v1, LOSSES["sched/lr_v1_epoch"], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(v2, LOSSES["sched/lr_v2_epoch"], rtol=1e-9)


def test_three_whole_training_steps() -> None:
    """Teacher, mask, losses, gradients, Adam, EMA, and the prediction afterwards, in float64."""
    g = load_golden("mhim_train.npz")
    random, low, high, high_random = (float(v) for v in g["mask_cfg_r_l_h_hr"])
    method = Method(
        aggregator={"name": "ab_mil_mhim", "stem_dim": 64, "attention_dim": 128, "dropout": 0.0},
        mining={
            "kind": "mhim",
            "high": high,
            "low": low,
            "random": random,
            "high_random": high_random,
            "momentum": float(g["mm"]),
            "consistency_weight": float(g["alpha"]),
            "student_init": "none",
        },
        task={"kind": "binary", "class_weight": "none"},
        training={"learning_rate": float(g["lr"]), "weight_decay": float(g["weight_decay"]), "accumulate": 1},
    )
    model = method.build(40).double()
    model.load_state_dict(state(g, "w0/")[2])
    bags = [Bag(f"step{i}", g[f"step{i}/x"], None, int(g["label"])) for i in range(3)]
    miner = MhimMiner(method.mining, model, steps=len(g["mrh_sche"]), weights=state(g, "t0/")[2])
    learner = Learner(
        model, Objective(method, bags, 0), build_optimizer(method.training, model), torch.Generator(), miner
    )
    model.train()

    def close(got: object, key: str) -> None:
        got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
        np.testing.assert_allclose(got, np.squeeze(g[key]), rtol=1e-9, atol=1e-11)

    for i, bag in enumerate(bags):
        close(miner.ratios(i).high, f"step{i}/mask_ratio_h")
        whole = miner.teacher(bag.tensor(dtype=torch.float64))
        close(whole.embedding, f"step{i}/teacher_feat")
        close(whole.attention, f"step{i}/teacher_attn")
        kept = miner.mask(bag.tensor(dtype=torch.float64), i, torch.Generator())[0].kept
        published = g[f"step{i}/mask_ids"][: int(g[f"step{i}/len_keep"])]
        np.testing.assert_array_equal(kept, np.sort(published))
        loss = learner.loss(bag)
        close(loss.parts["bag"], f"step{i}/ce")
        close(loss.parts["consistency"], f"step{i}/con")
        close(loss.total, f"step{i}/loss")
        loss.total.backward()
        _, _, gradients = state(g, f"step{i}/grad/")
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.grad, gradients[name], rtol=1e-9, atol=1e-11)
        learner.bags_seen += 1
        learner.step()
    for network, prefix in ((model, "step2/w/"), (miner.teacher, "step2/t/")):
        for name, wanted in state(g, prefix)[2].items():
            np.testing.assert_allclose(network.state_dict()[name], wanted, rtol=1e-9, atol=1e-11)
    last = model.eval()(bags[int(g["final/infer_x_is_step"])].tensor(dtype=torch.float64))
    close(last.logits, "final/infer_logits")
