"""What all settings share. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
BinaryHead = Literal["single", "two"]
Initialisation = Literal["torch", "xavier"]


class Config(BaseModel):
    """Frozen, and nothing unknown is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def named(key: str) -> BeforeValidator:
    """A bare string is the name of a kind: supervision="rank"."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)
