"""What a trained model says about a slide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mil.errors import TrainingError

from .aggregators import Aggregator
from .bag import Bag
from .checkpoint import Run
from .configs import InstanceSupervision, SurvivalTask
from .devices import find_device, memory_in_words
from .records import Prediction
from .survival import risk_gradient, survival_curve, survival_risk
from .tasks import probabilities


def predict(run: Run, bag: Bag, *, device: str = "cpu", model: Aggregator | None = None) -> Prediction:
    """Logits, probabilities (survival: and risk), and what each patch had to do with them.

    Parameters
    ----------
    run : Run
    bag : Bag
        With features of the encoder that the run was trained on.
    device : str
    model : Aggregator or None
        `run.build()` of before, to predict many slides without reading the weights again.

    Raises
    ------
    TrainingError
        Features of another size, no weights, or not enough memory.
    """
    if bag.dim != run.in_dim:
        encoder = run.provenance.get("features", {}).get("encoder")
        raise TrainingError(
            f"Slide {bag.slide_id} has {bag.dim} numbers per patch, but this model was trained on {run.in_dim}"
            f"{f' (encoder {encoder})' if encoder else ''}; extract the slide with the same encoder."
        )
    where = find_device(device)
    network = (model if model is not None else run.build()).to(where).eval()
    with memory_in_words(bag, where), torch.no_grad():
        x = bag.tensor(where, next(network.parameters()).dtype)  # (N, D)
        output = network(x)
        p = probabilities(output.logits, run.method.task)  # (n_classes,)
        survival = isinstance(run.method.task, SurvivalTask)
        column = None if survival else 1 if run.n_classes == 2 else int(p.argmax())
        attention = _of_class(output.attention, column)
        scores = _of_class(output.scores, column)
        terms = network.contributions(x, output)  # (N, C) or None
        contribution = None if terms is None else _contribution(terms, output.logits, column)
        own = None if survival else network.instance_probabilities(x)  # (N, n_classes) or None
        by_itself = None if own is None else own[:, column]
        if isinstance(run.method.supervision, InstanceSupervision):
            by_itself = torch.sigmoid(_of_lesion(output.scores, column))
        return Prediction(
            slide_id=bag.slide_id,
            logits=_array(output.logits),
            probabilities=_array(p),
            scores=_array(scores),
            attention=_array(attention),
            contribution=None if contribution is None else _array(contribution),
            instance_probability=None if by_itself is None else _array(by_itself),
            risk=float(survival_risk(output.logits)) if survival else None,
            survival=_array(survival_curve(output.logits)) if survival else None,
        )


def _of_class(values: Tensor, column: int | None) -> Tensor:
    """(N,), or the column of a class of (N, C); None: the mean of all, since bins of time are no classes."""
    if values.ndim == 1:
        return values
    return values.mean(dim=1) if column is None else values[:, min(column, values.shape[1] - 1)]


def _contribution(terms: Tensor, logits: Tensor, column: int | None) -> Tensor:
    """What each patch adds to the logit of the class, (N,); None: to the risk of survival, to first order."""
    return terms @ risk_gradient(logits) if column is None else _towards(terms, column)


def _towards(logits: Tensor, column: int) -> Tensor:
    """Towards the positive class of two, (N,): the logit, or the difference of two; else the predicted class's."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, column]


def _of_lesion(scores: Tensor, column: int | None) -> Tensor:
    """Score (N,) of being a lesion: of the predicted class's, or of any where that is the class without lesions."""
    if scores.ndim == 2 and scores.shape[1] > 2 and column == 0:
        return scores[:, 1:].amax(dim=1)
    return _of_class(scores, column)


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    return values.float().cpu().numpy()
