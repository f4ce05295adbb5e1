"""The tensors of whatever a PyTorch module gives, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def named_tensors(value: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a tensor, dictionary or nested tuples; what is None or no tensor is left out.

    A dictionary's keys are the names (transformers' outputs are dictionaries); a tuple's are NAME_0, NAME_1, ….
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from named_tensors(each, str(key))
    elif isinstance(value, (tuple, list)):
        for index, each in enumerate(value):
            yield from named_tensors(each, f"{name}_{index}")
