"""Does learning from outlines help where lesions are small? Virtual slides from GlaS, five patient-disjoint splits.

    python benchmarks/glas_virtual_slides.py --glas GLAS_FOLDER --encoder resnet50_layer3.pt2 --out FOLDER

GlaS (165 H&E images of colon, here its 85 training images at 0.62 µm/px) is easy image by image. A *virtual slide* is
a mosaic of 40 of its fields: benign everywhere, and in a positive slide a connected 1-4 of them malignant, 2.5-10 % of
the area; the gland outlines of those fields are the lesions. Patients are dealt into five groups, a slide is made from
one group alone, and each group is the test set once: 80 slides, 5 splits, no patient on both sides.

Every method is trained on the same splits and seed. Reported, mean ± sd over the five splits: AUROC of the slide's
label on the test slides, and AUROC of the patch scores against the outlines inside positive test slides.

    python benchmarks/glas_virtual_slides.py --mining --epochs 40 --glas GLAS_FOLDER --encoder … --out FOLDER
    python benchmarks/glas_virtual_slides.py --mining --epochs 40 --project PROJECT

`--mining` asks about mining and outlines together, all with one network and one training: should a teacher that hides
patches spare the outlined ones, which the rank loss needs? `--project` takes any project (the sample cohort) instead;
`--epochs 40` is a first look of some ten minutes. What is trained already is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from shapely import affinity
from shapely.geometry import Polygon

from napari_mil import Lesion, LesionSet, Project, write_lesions

MPP = 0.62
PATCH_PX = 224
FIELD_PX = (672, 448)  # 3 x 2 patches, inside GlaS's 775 x 522
MOSAIC = (8, 5)  # fields across and down
# patients dealt so that each group has benign and malignant ones
GROUPS = (("10", "8", "14"), ("1", "13", "16"), ("3", "15", "6"), ("4", "5", "2"), ("9", "7", "11"))
SLIDES_PER_GROUP = 16
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "patch classifier": ("patch_classifier", {}),
    "AB-MIL": ("ab_mil_rank", {}),
    "AB-MIL, T = 1": ("ab_mil_rank", {"aggregator.threshold": 1.0}),
    "attention induction": ("attention_induction", {}),
    "attention induction, T = 1": ("attention_induction_t1", {}),
    "rank induction": ("rank_induction_no_threshold", {}),
    "rank induction, T = 1": ("rank_induction", {}),
    "shuffled outlines, T = 1": ("shuffled_outlines", {}),
}
SPARED, HIDDEN = {"mining.spare_lesions": True}, {"mining.spare_lesions": False}
MINING: dict[str, tuple[str, dict[str, Any]]] = {
    "patch classifier": ("patch_classifier", {}),
    "AB-MIL": ("abmil_c16", {}),
    "random masks only": ("random_mask_only", {}),
    "MHIM": ("mhim_abmil_c16", {}),
    "rank": ("abmil_c16", {"supervision.kind": "rank"}),
    "rank + MHIM, spared": ("rank_mhim", SPARED),
    "rank + MHIM, not spared": ("rank_mhim", HIDDEN),
    "rank + MHIM, spared, shuffled": ("rank_mhim", {"supervision.shuffle_labels": True}),
}
Pixels = npt.NDArray[np.uint8]


def read_glas(folder: Path) -> dict[str, dict[bool, list[tuple[Pixels, npt.NDArray[Any]]]]]:
    """patient → malignant or not → its (image, gland mask) pairs."""
    found: dict[str, dict[bool, list[tuple[Pixels, npt.NDArray[Any]]]]] = {}
    with (folder / "Grade.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            malignant = row["grade_glas"].strip() == "malignant"
            image = np.asarray(Image.open(folder / "images" / f"{row['name']}.webp").convert("RGB"))
            mask_file = next((folder / "masks").glob(f"{row['name']}*"))
            mask = np.asarray(Image.open(mask_file).convert("L"))
            found.setdefault(row["patient_id"].strip(), {True: [], False: []})[malignant].append((image, mask > 0))
    return found


def field(pairs: Sequence[tuple[Pixels, Any]], rng: np.random.Generator) -> tuple[Pixels, npt.NDArray[Any]]:
    """A random crop of a random image, flipped at random, with its mask."""
    usable = [p for p in pairs if p[0].shape[1] >= FIELD_PX[0] and p[0].shape[0] >= FIELD_PX[1]]
    image, mask = usable[rng.integers(len(usable))]
    x = rng.integers(image.shape[1] - FIELD_PX[0] + 1)
    y = rng.integers(image.shape[0] - FIELD_PX[1] + 1)
    cut = np.s_[y : y + FIELD_PX[1], x : x + FIELD_PX[0]]
    flip = np.s_[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    return image[cut][flip], mask[cut][flip]


def connected_fields(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`count` fields of the mosaic that touch each other."""
    chosen = [(int(rng.integers(MOSAIC[0])), int(rng.integers(MOSAIC[1])))]
    while len(chosen) < count:
        column, row = chosen[rng.integers(len(chosen))]
        dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[rng.integers(4)]
        spot = (column + dx, row + dy)
        if 0 <= spot[0] < MOSAIC[0] and 0 <= spot[1] < MOSAIC[1] and spot not in chosen:
            chosen.append(spot)
    return chosen


def outlines(mask: npt.NDArray[Any], x: int, y: int, coarse: bool) -> list[Polygon]:
    """Polygons of a field's glands (or of the whole field) at its place in the slide."""
    from skimage.measure import find_contours

    if coarse:
        return [Polygon([(x, y), (x + FIELD_PX[0], y), (x + FIELD_PX[0], y + FIELD_PX[1]), (x, y + FIELD_PX[1])])]
    found = []
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5):
        ring = Polygon(contour[:, ::-1] - 0.5)  # back from the pad; array index 0 is the pixel centre 0.5
        if ring.area > 400:
            found.append(affinity.translate(ring.simplify(1.0), x, y))
    return [p for p in found if p.is_valid and not p.is_empty]


def write_slide(path: Path, image: Pixels) -> None:
    """A pyramidal, JPEG-tiled TIFF that says its µm/px."""
    per_cm = 1e4 / MPP
    options: dict[str, Any] = {
        "tile": (256, 256),
        "compression": "jpeg",
        "compressionargs": {"level": 92},
        "photometric": "rgb",
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path) as file:
        level = image
        factor = 1
        while True:
            file.write(
                level,
                resolution=(per_cm / factor, per_cm / factor),
                subfiletype=int(factor > 1),
                metadata=None,
                **options,
            )
            if max(level.shape) <= 1024:
                break
            factor *= 2
            level = np.asarray(
                Image.fromarray(image).resize(
                    (image.shape[1] // factor, image.shape[0] // factor), Image.Resampling.BOX
                )
            )


def make_cohort(glas: Path, out: Path, *, seed: int, coarse: bool) -> Path:
    """Slides, outlines and the table; returns the table's path. What is there already is kept."""
    table = out / "slides.csv"
    if table.exists():
        return table
    patients = read_glas(glas)
    (out / "slides").mkdir(parents=True, exist_ok=True)
    (out / "outlines").mkdir(exist_ok=True)
    rows = []
    for number, group in enumerate(GROUPS):
        benign = [pair for patient in group for pair in patients[patient][False]]
        malignant = [pair for patient in group for pair in patients[patient][True]]
        for k in range(SLIDES_PER_GROUP):
            rng = np.random.default_rng([seed, number, k])
            positive = k % 2 == 1
            spots = connected_fields(int(rng.integers(1, 5)), rng) if positive else []
            image = np.zeros((MOSAIC[1] * FIELD_PX[1], MOSAIC[0] * FIELD_PX[0], 3), np.uint8)
            lesions = []
            for column in range(MOSAIC[0]):
                for row in range(MOSAIC[1]):
                    sick = (column, row) in spots
                    pixels, mask = field(malignant if sick else benign, rng)
                    x, y = column * FIELD_PX[0], row * FIELD_PX[1]
                    image[y : y + FIELD_PX[1], x : x + FIELD_PX[0]] = pixels
                    if sick:
                        lesions += [Lesion(p, label="Tumor") for p in outlines(mask, x, y, coarse)]
            name = f"group{number + 1}-{k:02d}"
            write_slide(out / "slides" / f"{name}.tif", image)
            if lesions:
                write_lesions(LesionSet(tuple(lesions)), out / "outlines" / f"{name}.geojson")
            rows.append([name, f"slides/{name}.tif", f"group{number + 1}", "malignant" if positive else "benign", 0])
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "path", "patient_id", "label", "partial_annotation"])
        writer.writerows(rows)
    return table


def make_project(table: Path, out: Path, encoder: str) -> Project:
    """The cohort as a project, with its outlines."""
    from napari_mil.lesion import read_lesions
    from napari_mil.slide import TileConfig

    folder = out / "project"
    if (folder / "project.json").exists():
        return Project.open(folder)
    # the images' own scale: resampling to 0.5 µm/px would invent pixels
    project = Project.create(
        folder, table, name="GlaS virtual slides", encoder=encoder, tile=TileConfig(target_mpp=MPP, patch_px=PATCH_PX)
    )
    for file in sorted((out / "outlines").glob("*.geojson")):
        project.save_lesions(file.stem, read_lesions(file))
    return project


def prepare(project: Project, device: str) -> None:
    """Features of all slides."""
    from napari_mil.study.prepare import prepare_all

    start, slide_id = time.monotonic(), ""
    for report in prepare_all(project, device=device):
        if report.slide_id != slide_id:
            slide_id = report.slide_id
            ready = sum(project.has_features(i) for i in project.slide_ids)
            print(f"{time.monotonic() - start:7.0f} s  {ready} of {len(project)} slides ready", flush=True)


def run(
    project: Project,
    table: Mapping[str, tuple[str, dict[str, Any]]],
    *,
    seed: int,
    device: str,
    epochs: int | None = None,
) -> Any:
    """Train and judge every method on the five splits; the results, a row a run.

    With `epochs` at most so many, and stopping early after a fifth of them without a better one; the patch classifier
    keeps its training, since half-trained it would flatter the others.
    """
    from napari_mil import Method, experiment
    from napari_mil.study import Protocol

    methods = {name: Method.preset(preset).with_settings(settings) for name, (preset, settings) in table.items()}
    if epochs is not None:
        short = {"training.epochs": epochs, "training.patience": epochs // 5, "training.min_epochs": epochs // 3}
        methods = {
            name: method if method.aggregator.name == "patch_classifier" else method.with_settings(short)
            for name, method in methods.items()
        }
    protocol = Protocol(kind="k_fold", folds=len(GROUPS), validation=1 / (len(GROUPS) - 1), seed=seed)
    steps = experiment(project, methods, protocol, device=device)
    while True:
        try:
            report = next(steps)
        except StopIteration as end:
            return end.value
        if report.result is not None:
            print(
                f"{report.done:3d}/{report.total}  {report.method}, split {report.split}: {report.message}", flush=True
            )


def main() -> None:
    """Make, prepare, train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cohort = parser.add_mutually_exclusive_group(required=True)
    cohort.add_argument("--glas", type=Path, help="folder with images/, masks/ and Grade.csv")
    cohort.add_argument("--project", type=Path, help="a project of two classes with outlines, instead")
    parser.add_argument("--encoder", default="texture", help="resnet50, texture, or a .pt2 file with its JSON beside")
    parser.add_argument("--out", type=Path, default=Path("glas-virtual-slides"))
    parser.add_argument("--methods", nargs="*", choices=sorted({*METHODS, *MINING}), help="only these")
    parser.add_argument("--mining", action="store_true", help="rank induction and masks together, see above")
    parser.add_argument("--epochs", type=int, help="train every method so long at most, for a first look")
    parser.add_argument("--coarse", action="store_true", help="outline whole fields instead of glands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    from napari_mil.study.report import compare_to, results_table, to_markdown

    encoder = str(Path(args.encoder).absolute()) if args.encoder.endswith(".pt2") else args.encoder
    if args.project is not None:
        project = Project.open(args.project)
    else:
        project = make_project(make_cohort(args.glas, args.out, seed=args.seed, coarse=args.coarse), args.out, encoder)
    prepare(project, args.device)
    table_of = MINING if args.mining else METHODS
    chosen = {name: table_of[name] for name in args.methods or table_of if name in table_of}
    results = run(project, chosen, seed=args.seed, device=args.device, epochs=args.epochs)
    table = results_table(results, ["auroc", "average_precision", "patch_auroc"])
    if args.json:
        print(json.dumps(json.loads(results.to_json(orient="records")), indent=2))
    print(to_markdown(table))
    if "AB-MIL" in chosen and len(chosen) > 1:
        print(to_markdown(compare_to(results, "AB-MIL")))


if __name__ == "__main__":
    main()
