"""One slide, or one patient, as multiple-instance learning sees it: a bag of patch features with one label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import TrainingError
from napari_mil.geometry import PatchGrid

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Bag:
    """The patches of one slide (or of one patient), and what is known about them.

    Parameters
    ----------
    slide_id : str
        Name of the slide; every error about this bag speaks of it.
    features : (N, D) array or tensor of float16, float32 or float64
        One row per patch. Kept as given (float16 stays half the memory). An object that only *can become* an array
        (an HDF5 dataset) is read, and checked, each time it is needed.
    grid : PatchGrid or None
        Where the patches are; not used for training.
    label : int or None
        Index of the slide's class; None where it is not known (prediction needs none).
    patch_labels : (N,) array of int or None
        1 lesion, 0 not, −1 unknown.
    patient_id : str or None
        A patient in training and validation at once is refused.
    event, time : bool and float, or None
        Survival: whether the event was seen, and when.
    tissue_pixels : (N,) array or None
        Tissue pixels of each patch, the weights of the attention-induction target.
    slides : tuple of (slide_id, int)
        The slides of a patient's bag and how many patches of it each has, in their order; empty for a slide's own bag.

    Raises
    ------
    TrainingError
        Wrong shapes, no patch, NaN or infinite features, unknown patch labels; the sentence names the slide.
    """

    slide_id: str
    features: Any
    grid: PatchGrid | None = None
    label: int | None = None
    patch_labels: npt.NDArray[np.int8] | None = None
    patient_id: str | None = None
    event: bool | None = None
    time: float | None = None
    tissue_pixels: npt.NDArray[np.int64] | None = None
    slides: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        features = self.features
        if not hasattr(features, "shape"):
            features = np.asarray(features)
            object.__setattr__(self, "features", features)
        self._check_shape(features)
        if isinstance(features, np.ndarray) or hasattr(features, "requires_grad"):
            _check_finite(features, self.slide_id)
        n = len(self)
        if self.grid is not None and len(self.grid) != n:
            raise TrainingError(
                f"Slide {self.slide_id}: {n} feature rows, but a grid of {len(self.grid)} patches; "
                "extract the features of this grid again."
            )
        object.__setattr__(self, "patch_labels", self._checked_patch_labels(n))
        object.__setattr__(self, "tissue_pixels", self._checked_tissue(n))
        if self.label is not None:
            label = int(self.label)
            if label != self.label or label < 0:
                raise TrainingError(
                    f"Slide {self.slide_id}: label {self.label!r}; expected the index of a class, 0, 1, …"
                )
            object.__setattr__(self, "label", label)

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def dim(self) -> int:
        """Numbers per patch, D."""
        return int(self.features.shape[1])

    @property
    def slide_ids(self) -> tuple[str, ...]:
        """The slides that are in it."""
        return tuple(name for name, _ in self.slides) or (self.slide_id,)

    def stored(self) -> torch.Tensor:
        """Features (N, D) of the type and on the device they are stored in; those on a disk are read and checked."""
        import torch

        features = self.features
        if not isinstance(features, torch.Tensor):
            array = np.asarray(features)
            array = array if array.flags.writeable else array.copy()
            features = torch.from_numpy(array)
            if array is not self.features:  # read just now: not checked yet
                _check_finite(features, self.slide_id)
        return features.detach()

    def tensor(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Features (N, D) on a device, float32 unless another `dtype` is asked for; shares memory where it can."""
        import torch

        return self.stored().to(device=device, dtype=dtype or torch.float32)

    def rows(self, index: npt.NDArray[np.int64]) -> torch.Tensor:
        """Features (n, D) of some patches only, float32 on the CPU; an index may come twice."""
        import torch

        unique, inverse = np.unique(index, return_inverse=True)  # ascending, as HDF5 wants them
        if isinstance(self.features, torch.Tensor):
            array = self.features[torch.from_numpy(unique).to(self.features.device)].detach().float().cpu().numpy()
        else:
            array = np.asarray(self.features[unique])
            _check_finite(array, self.slide_id)
        return torch.from_numpy(array[inverse]).float()

    def _check_shape(self, features: Any) -> None:
        shape = tuple(int(size) for size in features.shape)
        if len(shape) != 2 or shape[1] == 0:
            raise TrainingError(
                f"Slide {self.slide_id}: features have shape {shape}; expected (patches, numbers per patch)."
            )
        if shape[0] == 0:
            raise TrainingError(
                f"Slide {self.slide_id} has no patches; look at its tissue mask, or leave the slide out."
            )
        if "float" not in str(features.dtype):
            raise TrainingError(f"Slide {self.slide_id}: features are {features.dtype}; expected float16 or float32.")

    def _checked_patch_labels(self, n: int) -> npt.NDArray[np.int8] | None:
        if self.patch_labels is None:
            return None
        labels = np.asarray(self.patch_labels)
        if labels.shape != (n,):
            raise TrainingError(
                f"Slide {self.slide_id}: patch labels of shape {labels.shape} for {n} patches; expected ({n},)."
            )
        unknown = np.setdiff1d(labels, (-1, 0, 1))
        if unknown.size:
            raise TrainingError(
                f"Slide {self.slide_id}: patch label {unknown[0]}; expected 1 (lesion), 0 (no lesion) or -1 (unknown)."
            )
        return labels.astype(np.int8)

    def _checked_tissue(self, n: int) -> npt.NDArray[np.int64] | None:
        if self.tissue_pixels is None:
            return None
        tissue = np.asarray(self.tissue_pixels)
        if tissue.shape != (n,) or not np.isfinite(tissue).all() or (tissue < 0).any():
            raise TrainingError(
                f"Slide {self.slide_id}: tissue pixels of shape {tissue.shape}; expected {n} counts, none negative."
            )
        return np.array(tissue)


def _check_finite(features: Any, slide_id: str) -> None:
    """Refuse NaN and infinity in one pass over the features."""
    if (
        not isinstance(features, np.ndarray)
        and features.device.type == "cpu"
        and str(features.dtype) != "torch.bfloat16"
    ):
        features = features.detach().numpy()
    if isinstance(features, np.ndarray):
        if _is_finite(features):
            return
        finite = np.isfinite(features).all(axis=1)
    else:
        finite = features.isfinite().all(dim=1).cpu().numpy()
    rows = np.flatnonzero(np.logical_not(finite))
    if not len(rows):
        return
    raise TrainingError(
        f"Slide {slide_id}: the features of {len(rows)} of {features.shape[0]} patches are NaN or infinite "
        f"(first: patch {rows[0]}); extract this slide's features again."
    )


def _is_finite(array: npt.NDArray[np.floating]) -> bool:
    if array.dtype == np.float16:  # exponents that are all ones, ten times as fast as a sum
        return bool((array.view(np.uint16) & 0x7C00).max() < 0x7C00)
    return bool(np.isfinite(array.sum(dtype=np.float64)))  # any such value makes the sum one, too
