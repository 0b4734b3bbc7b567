"""How much memory a training step takes beyond the features, for the largest slides.

    python benchmarks/memory.py [--quick] [--json] [--device cpu]

AB-MIL in all its variants on a bag of 100,000 × 1,024 float16 features (training step, then evaluation), by chunks as
it is trained and, with `--direct`, at once; TransMIL on 20,000 patches; the rank loss over 10,000 × 90,000 pairs on one
core.
"""

from __future__ import annotations

import torch

from _mil import learner_of, one_step, peak_mb, random_bag, synchronise
from _timing import Report, parser, seconds_of
from napari_mil.mil import Method
from napari_mil.mil.supervision import rank_loss

VARIANTS = {
    "AB-MIL (Ilse)": ("ab_mil", {}),
    "AB-MIL (Ilse), gated": ("ab_mil_gated", {}),
    "AB-MIL (Ilse), no stem": ("ab_mil", {"aggregator.stem": "none"}),
    "AB-MIL (Ilse), tabular": ("ab_mil_tabular", {}),
    "AB-MIL (MHIM)": ("abmil_c16", {}),
    "AB-MIL (MHIM), gated": ("abmil_gated_c16", {}),
    "AB-MIL (MHIM), GELU": ("abmil_c16", {"aggregator.activation": "gelu"}),
    "AB-MIL (rank)": ("ab_mil_rank", {}),
    "rank induction, T = 1": ("rank_induction", {"aggregator.threshold": 1.0}),
}


def main() -> None:
    options = parser(__doc__, 3)
    options.add_argument("--quick", action="store_true", help="small bags, to see that it runs")
    options.add_argument("--direct", action="store_true", help="AB-MIL at once, too")
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    device, report = torch.device(chosen.device), Report("memory")
    n, n_trans = (3_000, 500) if chosen.quick else (100_000, 20_000)
    bag = random_bag("large", n, 1024, lesion=n // 10)
    size = bag.features.nbytes / 1e6
    report.note(f"Features: {n:,} × 1,024 float16, {size:.0f} MB, not counted. Time: one step, loss to optimiser.")
    largest = 0.0
    for name, (preset, settings) in VARIANTS.items():
        ways = {"as trained": "always" if chosen.quick else "auto"} | ({"at once": "never"} if chosen.direct else {})
        for way, recompute in ways.items():
            method = Method.preset(preset).with_settings({**settings, "training.recompute": recompute})
            learner = learner_of(method, [bag, random_bag("other", 10, 1024, 0)], device)
            one_step(learner, random_bag("warm", 64, 1024, lesion=6))

            def step(learner=learner) -> None:
                one_step(learner, bag)
                synchronise(device)

            peak = peak_mb(step, device)
            judged = peak_mb(lambda learner=learner: learner.evaluate([bag], lambda i: None), device)
            seconds = min(seconds_of(step).least for _ in range(chosen.rounds))
            report.row(
                f"MB beyond {size:.0f} MB of features", f"{name}, {way}", step=peak, evaluation=judged, s=seconds
            )
            if recompute != "never":
                largest = max(largest, peak, judged)
    report.goal("AB-MIL beyond the features, MB", largest, most=500)
    trans_mil(report, n_trans, device)
    pairs(report, *((100, 900) if chosen.quick else (10_000, 90_000)), rounds=chosen.rounds)
    report.print(chosen.json)


def trans_mil(report: Report, n: int, device: torch.device) -> None:
    bag = random_bag("trans", n, 1024)
    learner = learner_of(Method.preset("transmil_c16"), [bag], device)
    one_step(learner, random_bag("warm", 64, 1024))
    peak = peak_mb(lambda: one_step(learner, bag), device)
    report.row("TransMIL, MB beyond the features", f"{n:,} patches", step=peak)
    report.goal(f"TransMIL with {n:,} patches, MB", peak, most=2 * 1024**3 / 1e6)


def pairs(report: Report, lesion: int, other: int, rounds: int) -> None:
    """Value and gradient on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scores = torch.randn(lesion + other, generator=torch.Generator().manual_seed(0))
    scores[:lesion] += 1
    labels = (torch.arange(len(scores)) < lesion).long()

    def once() -> None:
        rank_loss(scores.clone().requires_grad_(), labels).backward()

    once()
    peak = peak_mb(once, torch.device("cpu"))
    taken = [seconds_of(once) for _ in range(3 * rounds)]
    torch.set_num_threads(threads)
    what = f"{lesion:,} × {other:,} pairs"
    least = min(one.least for one in taken)
    report.row("rank loss, one core", what, s=least, cpu_s=min(one.least_cpu for one in taken), MB=peak)
    report.goal(f"rank loss over {what}, s", least, most=0.1)
    report.goal(f"rank loss over {what}, MB", peak, most=100)


if __name__ == "__main__":
    main()
