"""What float16 can hold."""

from typing import Any

import numpy as np

from edgekit.errors import RefusedError

LARGEST = float(np.finfo(np.float16).max)


def check_range(name: str, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Raise RefusedError unless every value fits float16."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if not largest <= LARGEST:
        raise RefusedError(f"fp16 can't hold the weight {name!r}: its largest value is {largest:.3g}, beyond 65504")
