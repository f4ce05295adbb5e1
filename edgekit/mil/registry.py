"""Which function computes which operation.

An operation is a function of its parameters by name, as MIL names them; optional ones have MIL's defaults. It gives an
array for each output. Floats come as float32; operations that only move values take them as they are stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Compute = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """How an operation is computed; `moves`: it only moves values, so that float16 need not be widened for it."""

    compute: Compute
    moves: bool


OPERATIONS: dict[str, Implementation] = {}


def operation(*names: str, moves: bool = False) -> Callable[[Compute], Compute]:
    """Register a function as what computes the operations of these names (its own without any)."""

    def register(compute: Compute) -> Compute:
        for name in names or (compute.__name__.rstrip("_"),):
            OPERATIONS[name] = Implementation(compute=compute, moves=moves)
        return compute

    return register
