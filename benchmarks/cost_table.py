"""What every method costs: parameters, seconds per step and per epoch, memory at its peak.

    python benchmarks/cost_table.py [--quick] [--json] [--device cpu] [--patches 9075] [--slides 266]

A step is one bag: loss, gradient, optimiser and, with mining, teacher. CAMELYON16 has 266 slides of 9,075 patches on
average here (training and validation); an epoch is *extrapolated*, a step's least time × 266. Memory: beyond the bag's
float16 features. Hard negative bags cost two trainings of what they are made on.
"""

from __future__ import annotations

import torch

from _mil import learner_of, one_step, peak_mb, random_bag, synchronise
from _timing import Report, parser, seconds_of
from napari_mil.mil import Method

AGGREGATORS = {
    "AB-MIL (Ilse)": "ab_mil",
    "AB-MIL (Ilse), gated": "ab_mil_gated",
    "AB-MIL (rank)": "ab_mil_rank",
    "AB-MIL (MHIM)": "abmil_c16",
    "AB-MIL (MHIM), gated": "abmil_gated_c16",
    "DSMIL": "dsmil_c16",
    "TransMIL": "transmil_c16",
    "CLAM-SB": "clam_sb_c16",
    "CLAM-MB": "clam_mb_c16",
    "DTFD-MIL (MaxMinS)": "dtfd_c16",
    "DTFD-MIL (AFS)": "dtfd_afs_c16",
    "mean": "mean",
    "max": "max",
    "patch classifier": "patch_classifier",
}
LESIONS = {"rank induction": "rank_induction", "attention induction": "attention_induction"}
MINING = {
    "MHIM (AB-MIL)": "mhim_abmil_c16",
    "MHIM (DSMIL)": "mhim_dsmil_c16",
    "MHIM (TransMIL)": "mhim_transmil_c16",
    "MHIM v2 (AB-MIL)": "mhim2_abmil",
    "MHIM v2 (DSMIL)": "mhim2_dsmil",
    "MHIM v2 (TransMIL)": "mhim2_transmil",
}


def main() -> None:
    options = parser(__doc__, 3)
    options.add_argument("--quick", action="store_true", help="bags of 300 patches, one round")
    options.add_argument("--device", default="cpu")
    options.add_argument("--patches", type=int, default=9_075)
    options.add_argument("--slides", type=int, default=266)
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    chosen = options.parse_args()
    n, rounds = (300, 1) if chosen.quick else (chosen.patches, chosen.rounds)
    device, report = torch.device(chosen.device), Report("cost_table")
    bag, other = random_bag("bag", n, 1024, lesion=n // 10), random_bag("other", 64, 1024, 0)
    table = f"{n:,} × 1,024, {chosen.precision}, {device}"
    for name, preset in {**AGGREGATORS, **LESIONS, **MINING}.items():
        method = Method.preset(preset).with_settings({"training.precision": chosen.precision})
        learner = learner_of(method, [bag, other], device)

        def step(learner=learner) -> None:
            one_step(learner, bag)
            synchronise(device)

        one_step(learner, other)
        peak = peak_mb(step, device)
        taken = min(seconds_of(step).least for _ in range(rounds))
        learned = sum(p.numel() for p in learner.model.parameters())
        if learner.miner is not None:
            learned += sum(p.numel() for p in learner.miner.learned())
        report.row(table, name, parameters=f"{learned:,}", s_per_step=taken, s_per_epoch=taken * chosen.slides, MB=peak)
    threads = f"{torch.get_num_threads()} thread(s)" if device.type == "cpu" else torch.cuda.get_device_name(device)
    report.note(f"{threads}. s_per_epoch is extrapolated: {chosen.slides} × the least of {rounds} steps. MB: peak "
                "beyond the features. A method with a miner trains its teacher's plain run first, once.")  # fmt: skip
    report.print(chosen.json)


if __name__ == "__main__":
    main()
