"""Splits data into train, validation and test by a hash of the source string, so that no source string leaks."""

import hashlib
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["train", "validation", "test"]


class SplitRule(BaseModel):
    """How a source string finds its part: by name of the rule, and the fractions held out.

    Raises pydantic.ValidationError unless both fractions lie in (0, 1) and leave something for training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: Literal["sha256-of-source"] = "sha256-of-source"
    test: float = Field(default=0.10, gt=0.0, lt=1.0)
    validation: float = Field(default=0.05, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.test + self.validation >= 1.0:
            raise ValueError(f"test {self.test:g} and validation {self.validation:g} leave nothing to train on")
        return self


def split_position(source: str) -> float:
    """Return where a source string lies in [0, 1): the first 8 bytes of its sha256, big-endian, over 2**64."""
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") / 2**64


def part_of(sources: Iterable[str], rule: SplitRule) -> Part:
    """Return the part of an example that comes from `sources` (one, or several with the same translation).

    Test wins over validation and validation over train: an example with any held-out source is held out.
    """
    position = min(map(split_position, sources))
    if position < rule.test:
        return "test"
    return "validation" if position < rule.test + rule.validation else "train"
