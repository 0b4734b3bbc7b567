"""bfloat16 against float32: how well they agree, and how much faster a step is.

    python benchmarks/precision.py [--quick] [--json] [--device cpu] [--patches 10000]

Both train the same slides from the same weights: 40 slides of 500 × 64 in two classes, the lesion a tenth of a positive
one; then losses, probabilities (of the bf16 run's weights reckoned in bf16 and in fp32, and between both runs) and the
ranks of attention are compared on slides that neither saw. Seconds: one step on a bag of 10,000 × 1,024, interleaved.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr

from _mil import learner_of, one_step, random_bag, synchronise
from _timing import Report, fast_bf16, interleaved, parser
from napari_mil.mil import Bag, Method, Run, fit, predict

PRESETS = ["ab_mil", "ab_mil_gated", "rank_induction", "abmil_c16", "mhim_abmil_c16", "dsmil_c16", "transmil_c16"]


def slides(count: int, n: int, seed: int, prefix: str) -> list[Bag]:
    """Every second slide is positive: a tenth of its patches lies apart."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        x = rng.normal(size=(n, 64)).astype(np.float16)
        labels = np.zeros(n, dtype=np.int8)
        if index % 2:
            labels[: n // 10] = 1
            x[: n // 10, :8] += 0.7
        made.append(Bag(f"{prefix}{index}", x, None, index % 2, labels))
    return made


def trained(method: Method, train: list[Bag], validation: list[Bag], device: str) -> tuple[list[float], Run]:
    training, losses = fit(method, train, validation, device=device), []
    while True:
        try:
            report = next(training)
        except StopIteration as stop:
            return losses, stop.value
        if not report.stage:
            losses.append(report.val_loss)


def agreement(report: Report, preset: str, quick: bool, device: str) -> None:
    count, n, epochs = (6, 40, 2) if quick else (40, 500, 10)
    train, validation, test = (slides(count, n, s, p) for s, p in ((0, "t"), (1, "v"), (2, "x")))
    base = {"training.epochs": epochs, "training.patience": None, "training.accumulate": 1}
    methods = [Method.preset(preset).with_settings({**base, "training.precision": p}) for p in ("fp32", "bf16")]
    (losses, run), (half_losses, half) = (trained(method, train, validation, device) for method in methods)
    between, ranks, rounding = [], [], []
    learner = learner_of(methods[1], train, torch.device(device))
    learner.model.load_state_dict(half.weights)
    learner.model.eval()
    for bag in test:
        one, two = predict(run, bag, device=device), predict(half, bag, device=device)
        between.append(abs(one.probabilities - two.probabilities).max())
        ranks.append(spearmanr(one.attention, two.attention).statistic)
        with torch.no_grad():
            logits = learner.see(learner.features(bag)).logits.cpu().numpy()
        rounding.append(abs(logits - two.logits).max())
    report.row(
        "bf16 against fp32",
        preset,
        val_loss_fp32=losses[-1],
        val_loss_bf16=half_losses[-1],
        worst_probability_between_runs=float(max(between)),
        least_rank_correlation_of_attention=float(np.nanmin(ranks)),
        worst_logit_bf16_vs_fp32_same_weights=float(max(rounding)),
    )


def speed(report: Report, preset: str, n: int, rounds: int, device: torch.device) -> float:
    bag = random_bag("bag", n, 1024, lesion=n // 10)
    steps = {}
    for precision in ("fp32", "bf16"):
        method = Method.preset(preset).with_settings({"training.precision": precision})
        learner = learner_of(method, [bag, random_bag("other", 10, 1024, 0)], device)

        def step(learner=learner) -> None:
            one_step(learner, bag)
            synchronise(device)

        step()
        steps[precision] = step
    taken = interleaved(steps, rounds)
    ratio = taken["fp32"].least / taken["bf16"].least
    report.row(
        f"s per step, {n:,} × 1,024", preset, fp32=taken["fp32"].least, bf16=taken["bf16"].least, times_faster=ratio
    )
    return ratio


def main() -> None:
    options = parser(__doc__, 3)
    options.add_argument("--quick", action="store_true", help="small slides, two methods")
    options.add_argument("--device", default="cpu")
    options.add_argument("--patches", type=int, default=10_000)
    options.add_argument("--presets", nargs="*")
    chosen = options.parse_args()
    report = Report("precision")
    presets = chosen.presets or (["ab_mil", "mhim_abmil_c16"] if chosen.quick else PRESETS)
    ratios = {}
    for preset in presets:
        agreement(report, preset, chosen.quick, chosen.device)
        n = 500 if chosen.quick else chosen.patches
        ratios[preset] = speed(report, preset, n, chosen.rounds, torch.device(chosen.device))
    if fast_bf16() and "ab_mil_gated" in ratios:
        report.goal("gated AB-MIL, bf16 times faster than fp32", ratios["ab_mil_gated"], least=2.5)
    report.note(f"{torch.get_num_threads()} thread(s). Evaluation is in the training's precision, prediction in fp32.")
    report.print(chosen.json)


if __name__ == "__main__":
    main()
