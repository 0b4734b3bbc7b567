"""Every random number of a training, from one seed, resumable, and without touching anybody else's generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Randomness:
    """Generators of one training.

    Each purpose has its own stream, so that methods compared with one seed see the slides in the same order and start
    from the same weights, whatever else they draw.

    Attributes
    ----------
    order : torch.Generator
        Order of the slides.
    draws : torch.Generator
        Masks, sampled pairs, patches of other slides.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.order = torch.Generator().manual_seed(seed)
        self.draws = torch.Generator().manual_seed(seed + 1_000_003)
        caller = random_states(self.device)
        torch.manual_seed(seed)  # first weights, dropout
        self._states = random_states(self.device)
        set_random_states(caller, self.device)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Our torch generators (dropout, first weights) instead of the caller's, and back."""
        caller = random_states(self.device)
        set_random_states(self._states, self.device)
        try:
            yield
        finally:
            self._states = random_states(self.device)
            set_random_states(caller, self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """State of all generators, as uint8 tensors."""
        return {"order": self.order.get_state(), "draws": self.draws.get_state(), **self._states}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a recorded state (a device's generator that was not recorded starts from the seed)."""
        self.order.set_state(state["order"])
        self.draws.set_state(state["draws"])
        self._states.update({key: state[key] for key in self._states if key in state})


def random_states(device: torch.device) -> dict[str, Tensor]:
    """States of the global generators that work on a device draws from: the CPU's, and its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_states` found."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])
