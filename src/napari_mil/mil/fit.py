"""Training as a generator: one frozen report per epoch, the run at the end."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mil.errors import TrainingError

from .bag import Bag
from .checkpoint import LAST, RUN_JSON, Run
from .checks import check_bags
from .configs import HardNegativeMining, Mhim2Mining, MhimMining
from .devices import find_device
from .method import Method
from .mistakes import learn_from_mistakes
from .patients import task_bags
from .records import PLAIN, EpochReport
from .shelf import light_bags
from .trainer import OnBag, Trainer, begin, new_run


def fit(
    method: Method,
    train: Sequence[Bag],
    validation: Sequence[Bag],
    *,
    seed: int = 0,
    device: str = "cpu",
    out: Path | str | None = None,
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
    on_bag: OnBag | None = None,
    initial: Mapping[str, Tensor] | None = None,
    plain: Run | None = None,
    keep_mb: float | None = None,
) -> Generator[EpochReport, None, Run]:
    """Train a method.

    MHIM's teacher and the second training of hard negative bags start from a plain run of the same slides and seed. It
    is trained first where none is given, in the folder `plain` of `out`; its reports say so (`stage`).

    Parameters
    ----------
    method : Method
    train, validation : sequences of Bag
        Validation chooses the best epoch and stops early; keep test slides out of both. Where the task asks for it, all
        slides of a patient become one bag (`patient_bags`).
    seed : int
        The same seed on the same device gives the same weights, bit for bit.
    device : str
        "cpu", "cuda", "cuda:1", "mps" or "auto".
    out : path or None
        Folder of the run: run.json, epochs.csv, best.safetensors, last.safetensors, rewritten after every epoch.
    provenance : mapping or None
        Recorded in the run: encoder, split, hashes.
    resume : bool
        Go on from `out`'s last checkpoint, to the same result as without interruption; from the start where there is
        none.
    on_bag : callable (done, total) or None
        Called after each slide of an epoch, training and validation; may raise (`Cancelled`) to stop at once: the
        checkpoints of the last whole epoch stay.
    initial : mapping of str to tensor or None
        First weights of the network; None: drawn from the seed.
    plain : Run or None
        A trained plain run to start from (`plain_method`), so that none has to be trained.
    keep_mb : float or None
        Features on a disk are read while other slides are computed with, and at most so much of them (10⁶ bytes) is
        kept for the next epochs. None: half of the memory that is free.

    Yields
    ------
    EpochReport

    Returns
    -------
    Run
        With the weights of the best epoch.

    Raises
    ------
    TrainingError
        The data, the device or the folder do not allow it; or the loss is no longer a number.
    """
    train, validation = (task_bags(light_bags(bags), method.task) for bags in (train, validation))
    notes = check_bags(method, train, validation)
    where = find_device(device)
    folder = Path(out) if out is not None else None
    _refuse_folder(folder, resume)
    begun = resume and folder is not None and (folder / LAST).exists()
    if plain is None and not begun:
        plain = _given_plain(method)
    if plain is None and not begun and needs_plain(method):
        inner = folder / PLAIN if folder is not None else None
        if folder is not None:
            begin(folder, new_run(method, train, seed, where, folder, provenance, notes))
        training = fit(
            plain_method(method),
            train,
            validation,
            seed=seed,
            device=device,
            out=inner,
            provenance=provenance,
            resume=inner is not None and (inner / RUN_JSON).exists(),
            on_bag=on_bag,
            initial=initial,
            keep_mb=keep_mb,
        )
        plain = yield from _as_stage(training, PLAIN)
    if isinstance(method.mining, HardNegativeMining):
        first = plain if plain is not None else _first_training(folder)
        taken = {bag.slide_id for bag in [*train, *validation]}
        found = learn_from_mistakes(
            method.mining, first, train, taken=taken, seed=seed, device=device, on_bag=on_bag or _ignore
        )
        train, notes = [*train, *found.bags], [*notes, found.note]
        initial = first.weights if method.mining.second == "continued" else initial
    room = None if keep_mb is None else int(keep_mb * 1e6)
    trainer = Trainer(method, train, validation, seed, where, folder, provenance, notes, initial, plain, room)
    trainer.prepare(resume)
    while not trainer.finished:
        yield trainer.epoch(on_bag or _ignore)
    return trainer.result()


def needs_plain(method: Method) -> bool:
    """Whether a plain run has to be there before this method can be trained."""
    mining = method.mining
    if isinstance(mining, MhimMining | Mhim2Mining):
        return mining.teacher == PLAIN
    return isinstance(mining, HardNegativeMining)


def plain_method(method: Method) -> Method:
    """The same without mining: what MHIM's teacher starts from, or the first training of hard negative bags."""
    return method.with_settings({"mining.kind": "none"})


def _given_plain(method: Method) -> Run | None:
    mining = method.mining
    if isinstance(mining, MhimMining | Mhim2Mining) and mining.teacher not in (PLAIN, "copy"):
        return Run.load(mining.teacher)
    return None


def _first_training(folder: Path | None) -> Run:
    """That of a second training which goes on: the same run makes the same hard negative bags."""
    assert folder is not None
    if not (folder / PLAIN / RUN_JSON).exists():
        raise TrainingError(
            f"{folder} began from a first training that was handed in and is not kept here; hand it in again (plain)."
        )
    return Run.load(folder / PLAIN)


def _as_stage(training: Generator[EpochReport, None, Run], stage: str) -> Generator[EpochReport, None, Run]:
    while True:
        try:
            yield replace(next(training), stage=stage)
        except StopIteration as stop:
            run: Run = stop.value
            return run


def _refuse_folder(folder: Path | None, resume: bool) -> None:
    if folder is None:
        if resume:
            raise TrainingError("Nothing to resume: no folder was given (out).")
    elif (folder / RUN_JSON).exists() and not resume:
        raise TrainingError(f"{folder} already holds a run; resume it, or choose another folder.")


def _ignore(done: int, total: int) -> None:
    return None
