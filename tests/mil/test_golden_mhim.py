"""MHIM-MIL, number by number against the published implementation (METHODS §1.2, §3)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from napari_mil.mil import (
    Bag,
    BagOutput,
    MaskRatios,
    Method,
    build_aggregator,
    consistency_loss,
    convert_state_dict,
    cosine_schedule,
    mask_instances,
)
from napari_mil.mil.convert import renamed
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.mining import Mhim2Miner, MhimMiner, RecycleNetwork, class_aware_score
from napari_mil.mil.mining.masks import extreme
from napari_mil.mil.objective import Objective

from .conftest import load_golden

MASKS = load_golden("mhim_masks.npz")
CONFIGS = sorted(key.removesuffix("/cfg") for key in MASKS if key.endswith("/cfg"))


def state(golden: dict[str, np.ndarray], prefix: str, source: str = "mhim_v1") -> dict[str, torch.Tensor]:
    published = {key[len(prefix) :]: torch.from_numpy(v) for key, v in golden.items() if key.startswith(prefix)}
    return renamed(published, source)[1]  # gradients and ends are kept in their first rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_at_full_size(shared_data, dtype: torch.dtype) -> None:
    with np.load(shared_data / "golden" / "mhim_golden_v1_fwd_attn.npz") as file:
        g = {key: file[key] for key in file.files}
    published = {key[2:]: torch.from_numpy(v) for key, v in g.items() if key.startswith("w/")}
    name, options, weights = convert_state_dict(published, "mhim_v1")
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


def close(got: object, wanted: np.ndarray) -> None:
    """float64 on both sides; long arrays are kept as every eighth row."""
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    if got.ndim > 1 and len(got) != len(wanted):
        got = got[::8]
    np.testing.assert_allclose(np.squeeze(got), np.squeeze(wanted), rtol=1e-9, atol=1e-11)


STEPS = {
    "mhim_train.npz": {"name": "ab_mil_mhim", "stem_dim": 64},
    "mhim_train_transmil.npz": {"name": "trans_mil", "stem_dim": 64, "attention_dropout": 0.0},
}


@pytest.mark.parametrize("file", STEPS)
def test_three_whole_training_steps(file: str) -> None:
    """Teacher, mask, losses, gradients, Adam, EMA, and the prediction afterwards, in float64."""
    g = load_golden(file)
    random, low, high, high_random = (float(v) for v in g["mask_cfg_r_l_h_hr"])
    method = Method(
        aggregator={**STEPS[file], "dropout": 0.0},
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
    model.load_state_dict(state(g, "w0/"))
    bags = [Bag(f"step{i}", g[f"step{i}/x"].astype(np.float64), None, int(g["label"])) for i in range(3)]
    miner = MhimMiner(method.mining, model, steps=len(g["mrh_sche"]), weights=state(g, "t0/"))
    learner = Learner(
        model, Objective(method, bags, 0), build_optimizer(method.training, model), torch.Generator(), miner
    )
    model.train()
    for i, bag in enumerate(bags):
        close(miner.ratios(i).high, g[f"step{i}/mask_ratio_h"])
        x = bag.tensor(dtype=torch.float64)
        whole = miner.teacher(x)
        close(whole.embedding, g[f"step{i}/teacher_feat"])
        close(miner.teacher.mining_scores(whole), g[f"step{i}/teacher_attn"])
        masked, embedding = miner.mask(x, i, torch.Generator())
        published = np.sort(g[f"step{i}/mask_ids"][: int(g[f"step{i}/len_keep"])]).astype(np.int64)
        if whole.head_scores is None:
            np.testing.assert_array_equal(masked.kept, published)
        else:  # many patches have as many votes as the last: which of them is anybody's choice, go on with theirs
            assert abs(len(masked.kept) - len(published)) <= 3
            masked = masked._replace(kept=torch.from_numpy(published))
        miner.mask = lambda *_, found=(masked, embedding): found
        loss = learner.loss(bag)
        del miner.mask
        close(loss.parts["bag"], g[f"step{i}/ce"])
        close(loss.parts["consistency"], g[f"step{i}/con"])
        close(loss.total, g[f"step{i}/loss"])
        loss.total.backward()
        gradients = state(g, f"step{i}/grad/")
        for name, p in model.named_parameters():
            close(p.grad, gradients[name].numpy())
        learner.bags_seen += 1
        learner.step()
    for network, prefix in ((model, "step2/w/"), (miner.teacher, "step2/t/")):
        for name, wanted in state(g, prefix).items():
            close(network.state_dict()[name], wanted.numpy())
    last = model.eval()(bags[int(g["final/infer_x_is_step"])].tensor(dtype=torch.float64))
    close(last.logits, g["final/infer_logits"])


RECYCLE = {"norm.weight", "norm.bias", "to_q.weight", "to_kv.weight", "to_out.weight", "to_out.bias"}


def recycle_state(golden: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    """Of the recycle network; the published names are those of a wider module."""
    merge = {k[len(prefix) :]: torch.from_numpy(v) for k, v in golden.items() if k.startswith(prefix)}
    merge = {key.removeprefix("attn.").replace("to_out.0", "to_out"): value for key, value in merge.items()}
    queries = {"queries": merge["global_q_mm"][0]} if "global_q_mm" in merge else {}
    return {key: merge[key] for key in RECYCLE if key in merge} | queries


class TestSecondVersion:
    def test_two_whole_training_steps(self) -> None:
        """Ranking, both masks, recycle network, queries, losses, gradients, Adam, EMA, in float64."""
        g = load_golden("mhim2_train.npz")
        method = Method(
            aggregator={"name": "ab_mil_mhim", "stem_dim": 64, "dropout": 0.0, "activation": "gelu"},
            mining={
                "kind": "mhim2",
                "high": float(g["mask_ratio_h"]),
                "keep": float(g["merge_keep_ratio"]),
                "queries": int(g["merge_k"]),
                "query_momentum": float(g["merge_mm"]),
                "recycle_dropout": 0.0,
                "momentum": float(g["mm"]),
                "consistency_weight": float(g["alpha"]),
            },
            task={"kind": "multiclass", "classes": ["a", "b", "c"]},
            training={"learning_rate": float(g["lr"]), "weight_decay": float(g["weight_decay"]), "accumulate": 1},
        )
        model = method.build(40).double()
        model.load_state_dict(state(g, "w0/", "mhim_v2"))
        bags = [Bag(f"step{i}", g[f"step{i}/x"].astype(np.float64), None, int(g["label"])) for i in range(2)]
        miner = Mhim2Miner(method.mining, model, steps=2, weights=state(g, "t0/", "mhim_v2"))
        miner.recycle.load_state_dict(recycle_state(g, "w0/merge."))
        learner = Learner(
            model, Objective(method, bags, 0), build_optimizer(method.training, model, miner), torch.Generator(), miner
        )
        model.train()
        for i, bag in enumerate(bags):
            x, noise = bag.tensor(dtype=torch.float64), torch.from_numpy(g[f"step{i}/noise"])
            score = class_aware_score(miner.teacher, x)
            close(score.exp(), g[f"step{i}/score"])
            found, embedding = miner.mask(x, torch.Generator(), noise=noise)
            close(embedding, g[f"step{i}/teacher_feat"])
            for ours, published in (("kept", "kept_after_random"), ("recycled", "recycled")):
                np.testing.assert_array_equal(getattr(found, ours), np.sort(g[f"step{i}/{published}"]))
            close(miner.recycle.queries, g[f"step{i}/global_q_before"])
            close(miner.recycle(model.instances(x[found.recycled])), g[f"step{i}/grn_z"])
            miner.mask = functools.partial(Mhim2Miner.mask, miner, noise=noise)
            output = miner.teach(model, x, i, torch.Generator()).output
            close(output.logits, g[f"step{i}/logits"])
            assert len(output.scores) == len(output.attention) == len(found.kept)
            miner.recycle.queries = torch.from_numpy(g[f"step{i}/global_q_before"]).double()
            loss = learner.loss(bag)
            del miner.mask
            close(miner.recycle.queries, g[f"step{i}/global_q_after"])
            close(loss.parts["bag"], g[f"step{i}/ce"])
            close(loss.parts["consistency"], g[f"step{i}/con"])
            close(loss.total, g[f"step{i}/loss"])
            loss.total.backward()
            gradients = state(g, f"step{i}/grad/", "mhim_v2")
            for name, p in model.named_parameters():
                close(p.grad, gradients[name].numpy())
            gradients = recycle_state(g, f"step{i}/grad/merge.") | recycle_state(g, f"step{i}/grad_clean/merge.")
            for name, p in miner.recycle.named_parameters():
                close(p.grad, gradients[name].numpy())
            # published: the queries moved before this gradient was taken, and the step went along what came of it
            miner.recycle.norm.weight.grad = torch.from_numpy(g[f"step{i}/grad/merge.norm.weight"])
            learner.bags_seen += 1
            learner.step()
        for network, prefix in ((model, "end/w/"), (miner.teacher, "end/t/")):
            for name, wanted in state(g, prefix, "mhim_v2").items():
                close(network.state_dict()[name], wanted.numpy())
        for name, wanted in recycle_state(g, "end/w/merge.").items():
            close(miner.recycle.state_dict()[name], wanted.numpy())
        close(model.eval()(bags[1].tensor(dtype=torch.float64)).logits, g["end/infer_logits"])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_recycle_network_at_full_size(self, shared_data, dtype: torch.dtype) -> None:
        with np.load(shared_data / "golden" / "mhim_golden_v2_grn.npz") as file:
            g = {key: file[key] for key in file.files}
        network = RecycleNetwork(512)
        assert sum(p.numel() for p in network.parameters()) == 1_050_112
        network.load_state_dict(recycle_state(g, "w/"))
        network.eval().to(dtype)
        z = network(torch.from_numpy(g["x"]).to(dtype))
        tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(z.detach(), g["z@f64"], **tolerance)
        network.remember(z)
        np.testing.assert_allclose(network.queries, g["q_after_one_ema@f64"], **tolerance)

    def test_class_aware_score_at_full_size(self, shared_data) -> None:
        with np.load(shared_data / "golden" / "mhim_golden_v2_score.npz") as file:
            g = {key: file[key] for key in file.files}
        model = build_aggregator("ab_mil_mhim", 512, 3, binary_head="two").double()
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(g["W"]))
        h, a = (torch.from_numpy(g[key]).double() for key in "ha")
        output = BagOutput(a[:3], a, a, h[0])
        score = model.class_aware_score(h, output)
        np.testing.assert_allclose(score.exp().detach(), g["score_abmil"], rtol=1e-6)
        published = torch.from_numpy(g["score_abmil"])
        assert (published[score.argsort()].diff() >= -1e-7).all()
