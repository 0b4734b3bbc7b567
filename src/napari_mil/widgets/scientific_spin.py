"""A field for numbers of any size."""

from __future__ import annotations

import math

from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QAbstractSpinBox, QDoubleSpinBox

LARGEST = 1e12


class ScientificSpin(QDoubleSpinBox):
    """A number of any size: 0.5, 2e-4, 1000; the arrows change its second digit."""

    def __init__(self, low: float = -LARGEST, high: float = LARGEST) -> None:
        super().__init__()
        self.setDecimals(15)
        self.setRange(low, high)
        self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        return f"{value:.10g}"

    def valueFromText(self, text: str | None) -> float:
        try:
            return float((text or "").replace(",", "."))
        except ValueError:
            return self.value()

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        text = text or ""
        try:
            fits = self.minimum() <= float(text.replace(",", ".")) <= self.maximum()
        except ValueError:
            fits = False
            if text.strip("0123456789.,eE+- "):
                return QValidator.State.Invalid, text, position
        return (QValidator.State.Acceptable if fits else QValidator.State.Intermediate), text, position

    def stepBy(self, steps: int) -> None:
        if self.value() == 0:  # no size of its own to go by
            self.setValue(math.copysign(min(0.1, self.maximum()), steps))
        else:
            super().stepBy(steps)
