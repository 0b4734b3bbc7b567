"""From reports to a fraction, a time left, and at most 20 messages a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

# more messages than this tell the eye nothing and cost the window's thread its time
MESSAGES_PER_SECOND = 20
# the pace of the last seconds counts, not that of the warm-up
_MEMORY_SECONDS = 10.0


def fraction_of(report: Mapping[str, Any]) -> float | None:
    """The share of the work that `report` says is done, 0 to 1, or None if it says nothing.

    Read are ``fraction``, ``epoch``/``epochs`` and ``done``/``total``; an ``epoch`` that is a report itself (of the
    training under way) counts as a part of one.
    """
    if _is_number(report.get("fraction")):
        return min(1.0, max(0.0, float(report["fraction"])))
    for done, total in (("epoch", "epochs"), ("done", "total")):
        count, whole = report.get(done), report.get(total)
        if _is_number(count) and _is_number(whole) and whole > 0:
            inner = report.get("epoch")
            part = (fraction_of(inner) or 0.0) if isinstance(inner, Mapping) else 0.0
            return float(min(1.0, max(0.0, (count + part) / whole)))
    return None


def is_milestone(report: Mapping[str, Any]) -> bool:
    """Whether `report` must never be dropped: an epoch's, the last one of a slide, or one that has a message."""
    if _is_number(report.get("epoch")) or report.get("message"):
        return True
    return "done" in report and report.get("done") == report.get("total")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class ProgressMeter:
    """Estimates the time left from the pace of the last seconds, smoothed so that it does not jump."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._when = clock()
        self._fraction: float | None = None
        self._rate: float | None = None  # fraction per second
        self._shown: float | None = None
        self._shown_at = self._when

    def update(self, fraction: float, hint: float | None = None) -> float | None:
        """Seconds left at `fraction`; a `hint` (seconds) from the report itself replaces our own estimate."""
        now = self._clock()
        estimate = hint if hint is not None and math.isfinite(hint) else self._estimate(fraction, now)
        if estimate is None:
            return self.seconds_left()
        if self._shown is None:
            self._shown = estimate
        else:
            counted_down = max(0.0, self._shown - (now - self._shown_at))
            self._shown = counted_down + 0.3 * (estimate - counted_down)
        self._shown_at = now
        return self._shown

    def seconds_left(self) -> float | None:
        """The last estimate, counted down to now."""
        if self._shown is None:
            return None
        return max(0.0, self._shown - (self._clock() - self._shown_at))

    def _estimate(self, fraction: float, now: float) -> float | None:
        if self._fraction is None or fraction < self._fraction:  # the first, or a new round
            self._fraction, self._when = fraction, now
            return None
        elapsed = now - self._when
        if elapsed >= 0.25 and fraction > self._fraction:
            pace = (fraction - self._fraction) / elapsed
            weight = 1.0 if self._rate is None else 1.0 - math.exp(-elapsed / _MEMORY_SECONDS)
            self._rate = pace if self._rate is None else self._rate + weight * (pace - self._rate)
            self._fraction, self._when = fraction, now
        # slower than a thousand years is no pace to speak of
        return None if self._rate is None or self._rate < 1e-11 else (1.0 - fraction) / self._rate
