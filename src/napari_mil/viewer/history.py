"""Undo and redo over immutable states: the state itself is kept, not the way back to it."""

from __future__ import annotations

from typing import Generic, TypeVar

S = TypeVar("S")
DEPTH = 200
"""States kept; they share what did not change, so this costs little."""


class History(Generic[S]):
    """A present state with a past and a future.

    Parameters
    ----------
    state : S
        The first state; it must not be changed in place.
    """

    def __init__(self, state: S, depth: int = DEPTH) -> None:
        self._present = state
        self._depth = depth
        self._past: list[tuple[str, S]] = []
        self._future: list[tuple[str, S]] = []

    @property
    def present(self) -> S:
        """The state that holds now."""
        return self._present

    @property
    def undo_label(self) -> str | None:
        """What would be undone ("draw", "move", …); None when there is nothing."""
        return self._past[-1][0] if self._past else None

    @property
    def redo_label(self) -> str | None:
        """What would be done again; None when there is nothing."""
        return self._future[-1][0] if self._future else None

    def do(self, label: str, state: S) -> None:
        """Go on to a new state; the future is forgotten."""
        self._past.append((label, self._present))
        del self._past[: -self._depth]
        self._future.clear()
        self._present = state

    def replace(self, state: S) -> None:
        """Correct the present without a step of its own."""
        self._present = state

    def reset(self, state: S) -> None:
        """Start anew: no past, no future."""
        self._present = state
        self._past.clear()
        self._future.clear()

    def undo(self) -> str | None:
        """Go back one step; what was undone, or None."""
        if not self._past:
            return None
        label, state = self._past.pop()
        self._future.append((label, self._present))
        self._present = state
        return label

    def redo(self) -> str | None:
        """Go forward one step; what was done again, or None."""
        if not self._future:
            return None
        label, state = self._future.pop()
        self._past.append((label, self._present))
        self._present = state
        return label
