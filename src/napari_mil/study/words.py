"""Numbers and names in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number with what it counts: "1 slide", "2 slides"; `many` where an s is not enough ("slides have")."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Names in a row: "a", "a and b", "a, b and c"; empty without any."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
