"""What training and prediction hand out: small frozen records, free of torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .bag import Bag

PLAIN = "plain"
"""The plain run that a miner starts from: the stage of its reports, and its folder in the run's own."""
METRICS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "c_index": "C-index"}
"""Names of what a task is judged by, and their titles: two or more classes have the first two, survival the last."""


def _json_able(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _json_able(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_able(item) for item in value]
    return value


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training, as the curves show it.

    Parameters
    ----------
    epoch, epochs : int
        The epoch just finished, counted from 1, and how many there will be at most.
    train_loss, val_loss : float
        Mean total loss per slide, in training (while the weights moved) and in validation (eval mode).
    parts : dict of str to float
        The losses' parts (`bag`, `rank`, `attention`, `instance`, `consistency`), unweighted means; those of
        validation start with `val_`.
    val_auroc : float or None
        Area under the ROC curve of the validation slides; None where only one class is there, and for survival.
    val_metrics : dict of str to float or None
        Every figure of the task on the validation slides, by the names of `METRICS` (which has their titles): `auroc`
        and `balanced_accuracy`, or `c_index`. None where it is not defined.
    learning_rate : float
        That of this epoch.
    seconds, seconds_left : float
        Of this epoch; to the last epoch at most (early stopping may come first).
    best_epoch : int
        The epoch whose weights are kept so far.
    improved : bool
        Whether that is this one.
    memory_mb : float
        GPU: the peak that this training held; CPU: memory of the process.
    notes : tuple of str
        Sentences a person should read once: in the first report after a start, what the data leave doubtful (few
        positives in validation, slides without outlines, …); in the last, whether more epochs may help.
    stage : str
        "" for the training itself; "plain" for the plain run that its miner starts from, which has epochs of its own.
    """

    epoch: int
    epochs: int
    train_loss: float
    parts: dict[str, float]
    val_loss: float
    val_auroc: float | None
    learning_rate: float
    seconds: float
    seconds_left: float
    best_epoch: int
    improved: bool
    memory_mb: float
    notes: tuple[str, ...] = field(default=())
    stage: str = ""
    val_metrics: dict[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings for JSON; a number that is not finite becomes None."""
        values: dict[str, Any] = _json_able(dataclasses.asdict(self))
        return values


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a trained model says about one bag: a slide, or a patient's slides together.

    Parameters
    ----------
    slide_id : str
        Name of the bag.
    logits : (C,) array of float32
        Output of the head: one number with a single binary head, else one per class.
    probabilities : (n_classes,) array of float32
        Of the classes; for survival, of the event in each bin of time (the last: in it or later).
    scores : (N,) array of float32
        Raw score of each patch, before softmax.
    attention : (N,) array of float32
        What the model pooled with (after the threshold, if any); sums to 1.
    contribution : (N,) array of float32 or None
        a_k · classifier(h_k): what each patch adds to the logit of the positive (predicted) class; for survival, what
        it adds to the risk, to first order: a_k Σ_j ∂risk/∂logit_j · classifier_j(h_k).
    instance_probability : (N,) array of float32 or None
        Probability of each patch by itself, where the model has a patch classifier.
    risk : float or None
        Survival: −Σ S_k, the higher, the sooner the event is expected.
    survival : (n_bins,) array of float32 or None
        Survival: S_k, the chance to outlive each bin of `Run.time_edges`.

    Notes
    -----
    Scores and attention per class (DSMIL, CLAM-MB) are those of the positive (predicted) class. What is meant by
    contribution and instance probability:

    =================  ===============================================  ==============================================
    model              contribution, summing up to                      instance probability
    =================  ===============================================  ==============================================
    AB-MIL             a_k (W h_k + b): the logit                       the slide's classifier asked about h_k
    mean               (W h_k + b)/N: the logit                         the same classifier, of h_k
    max                W h_k + b of the one patch that speaks           the same classifier, of h_k
    patch classifier   1/k of each of the k highest logits: the logit   the classifier, of x_k
    DSMIL              terms of both streams: the mean of their logits  the instance logits c_k
    TransMIL           none: layers between patches and logits          none
    CLAM-SB, CLAM-MB   a_k (W h_k + b): the logit                       "in" by the class's instance classifier
    DTFD-MIL           tier 2, 0 for what is not distilled: the logit   class activation softmax_c(W₁ a_k h_k) of tier 1
    =================  ===============================================  ==============================================

    Trained with the patch loss (`instance_bce`), every model's instance probability is σ(score).
    """

    slide_id: str
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    contribution: npt.NDArray[np.float32] | None = None
    instance_probability: npt.NDArray[np.float32] | None = None
    risk: float | None = None
    survival: npt.NDArray[np.float32] | None = None

    @property
    def predicted(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    def of_slides(self, bag: Bag) -> list[Prediction]:
        """The patient's prediction for each slide of its bag, its patches' figures cut in pieces.

        Attention adds up to 1 over the patient's slides, so that they can be compared.

        Parameters
        ----------
        bag : Bag
            The one that was predicted; a slide's own bag gives the prediction itself.
        """
        if not bag.slides:
            return [self]
        counts = [count for _, count in bag.slides]
        cuts = np.cumsum(counts)[:-1]
        fields = ("scores", "attention", "contribution", "instance_probability")
        pieces: dict[str, Sequence[npt.NDArray[np.float32]]] = {
            name: np.split(values, cuts) for name in fields if (values := getattr(self, name)) is not None
        }
        names = [name for name, _ in bag.slides]
        return [
            replace(self, slide_id=slide_id, **{name: parts[k] for name, parts in pieces.items()})  # type: ignore[arg-type]
            for k, slide_id in enumerate(names)
        ]
