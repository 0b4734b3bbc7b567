"""Numbers with their nouns."""

from __future__ import annotations


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Like “1 slide”, “3 slides”, “1,024 patches”."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def have(n: int) -> str:
    """The verb that goes with a number of things."""
    return "has" if n == 1 else "have"
