from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import FeatureError
from napari_mil.features import Encoder, get_encoder, list_encoders

Pixels = npt.NDArray[np.uint8]


def patches(count: int, px: int = 64, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 250, (count, px // 4, px // 4, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)


def test_it_is_an_encoder_and_says_that_it_is_the_weaker_one() -> None:
    encoder = get_encoder("texture")
    assert isinstance(encoder, Encoder)
    assert "weaker" in encoder.note
    assert encoder.weights_sha256 == "none"
    assert encoder.dim == next(info.dim for info in list_encoders() if info.name == "texture")


def test_the_same_bits_whatever_the_batch_and_the_memory_layout() -> None:
    encoder, batch = get_encoder("texture"), patches(7)
    rows = encoder.encode(batch)
    assert rows.shape == (7, encoder.dim)
    assert rows.dtype == np.float32
    alone = np.concatenate([encoder.encode(patch[None]) for patch in batch])
    assert np.array_equal(rows, alone)
    assert np.array_equal(rows[::-1], encoder.encode(np.ascontiguousarray(batch[::-1])))
    padded = np.zeros((7, 64, 65, 4), np.uint8)
    padded[:, :, 1:, :3] = batch
    assert np.array_equal(rows, encoder.encode(padded[:, :, 1:, :3]))


@settings(max_examples=15, deadline=None)
@given(st.integers(32, 90), st.integers(32, 90), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_bounded_and_finite_for_any_patch(h: int, w: int, base: int, seed: int) -> None:
    patch = np.random.default_rng(seed).integers(base // 2, base + 1, (1, h, w, 3), dtype=np.uint8)
    rows = get_encoder("texture").encode(patch)
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 3


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_patches_give_finite_features(value: int) -> None:
    assert np.isfinite(get_encoder("texture").encode(np.full((1, 64, 64, 3), value, np.uint8))).all()


def test_turning_or_mirroring_a_patch_changes_next_to_nothing() -> None:
    encoder, batch = get_encoder("texture"), patches(4)
    rows = encoder.encode(batch)
    spread = np.abs(rows - rows.mean(axis=0)).mean()
    for turned in (np.rot90(batch, axes=(1, 2)), batch[:, ::-1]):
        assert np.abs(encoder.encode(np.ascontiguousarray(turned)) - rows).mean() < 0.05 * spread


def test_wrong_arrays_are_refused_with_what_was_found() -> None:
    encoder = get_encoder("texture")
    with pytest.raises(FeatureError, match=r"float64; expected \(B, h, w, 3\) uint8"):
        encoder.encode(np.zeros((1, 64, 64, 3)))  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match="at least 32 px"):
        encoder.encode(np.zeros((1, 16, 64, 3), np.uint8))
    with pytest.raises(FeatureError, match="has no weights"):
        get_encoder("texture", weights="some.pth")


def test_neither_torch_nor_skimage_is_imported_for_it() -> None:
    code = (
        "import sys, numpy as np; from napari_mil.features import get_encoder, list_encoders; list_encoders();"
        "assert 'h5py' not in sys.modules and 'scipy' not in sys.modules;"
        "get_encoder('texture').encode(np.zeros((1, 64, 64, 3), np.uint8));"
        "assert not {'torch', 'torchvision', 'skimage', 'napari', 'qtpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_keeps_up() -> None:
    batch = patches(10, 224)
    encoder = get_encoder("texture")
    encoder.encode(batch[:1])
    start = time.process_time()
    encoder.encode(batch)
    assert len(batch) / (time.process_time() - start) > 50  # 300 a second on an idle core


def _webp(path: Path) -> Pixels:
    image = pytest.importorskip("PIL.Image")
    return np.array(image.open(path).convert("RGB"))


def _held_out_auroc(
    rows: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], groups: list[str]
) -> dict[str, float]:
    """AUROC inside each group that has both labels, by a regression on all the other groups."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    names, found = np.array(groups), {}
    for name in np.unique(names):
        inside = names == name
        if len(np.unique(labels[inside])) == 2:
            model = LogisticRegression(C=0.3, max_iter=2000).fit(rows[~inside], labels[~inside])
            found[str(name)] = float(roc_auc_score(labels[inside], model.decision_function(rows[inside])))
    return found


def test_tumour_from_normal_on_held_out_slides(shared_data: Path) -> None:
    files = sorted((shared_data / "camelyon16_patches256").rglob("*.webp"))
    labels = np.array([int(file.parent.name == "tumor") for file in files])
    rows = get_encoder("texture").encode(np.stack([_webp(file) for file in files]))
    found = _held_out_auroc(rows, labels, [file.stem.rsplit("_", 2)[0] for file in files])
    assert len(found) == 2
    assert np.mean(list(found.values())) > 0.75, found  # 0.87 when written; chance 0.5


def test_malignant_from_benign_glands_of_held_out_patients(shared_data: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    with open(shared_data / "glas" / "Grade.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    images = [_webp(shared_data / "glas" / "images" / f"{row['name']}.webp") for row in table]
    crops = np.stack([image[y : y + 224, x : x + 224] for image in images for y in (0, 190) for x in (0, 300)])
    labels = np.array([int(row["grade_glas"] == "malignant") for row in table])
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(
        LogisticRegression(C=0.3, max_iter=3000),
        get_encoder("texture").encode(crops),
        np.repeat(labels, 4),
        groups=np.repeat([row["patient_id"] for row in table], 4),
        cv=folds,
        method="decision_function",
    )
    assert roc_auc_score(labels, scores.reshape(-1, 4).mean(axis=1)) > 0.7  # 0.87 when written
