"""A subgraph of a TFLite model: who gives and who reads its tensors, and their shapes and values."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.export.tflite_edit import kind_of

_KINDS: dict[int, Any] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.BOOL: np.bool_,
}
Shape = tuple[int, ...]


class Graph:
    """A subgraph that is being rewritten."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        self.model, self.subgraph = model, subgraph

    def kind(self, operator: Any) -> int:
        """The kind of an operator, of schema.BuiltinOperator."""
        return kind_of(self.model, operator)

    def of_kind(self, kind: int) -> list[Any]:
        """All operators of a kind, in order."""
        return [op for op in self.subgraph.operators if kind_of(self.model, op) == kind]

    def giver(self, index: int) -> Any:
        """The operator that gives a tensor; None for inputs and constants."""
        return next((op for op in self.subgraph.operators if index in map(int, op.outputs)), None)

    def readers(self, index: int) -> list[Any]:
        """The operators that read a tensor."""
        return [op for op in self.subgraph.operators if index in map(int, op.inputs)]

    def shape(self, index: int) -> Shape:
        """The sizes of a tensor."""
        sizes = self.subgraph.tensors[index].shape
        return () if sizes is None else tuple(int(size) for size in sizes)

    def set_shape(self, index: int, shape: Shape) -> None:
        """Give a tensor another shape."""
        self.subgraph.tensors[index].shape = np.asarray(shape, np.int32)

    def values(self, index: int) -> Any:
        """The values of a constant of any type that numpy has; None for what is computed."""
        tensor = self.subgraph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type not in _KINDS:
            return None
        return np.frombuffer(np.asarray(data, np.uint8), _KINDS[tensor.type]).reshape(self.shape(index))

    def is_scalar(self, index: int) -> bool:
        """Whether a tensor is a constant of one number, which fits every shape (of no more axes)."""
        values = self.values(index)
        return values is not None and values.size == 1 and values.ndim <= 1

    def is_output(self, index: int) -> bool:
        """Whether the subgraph gives a tensor."""
        return index in map(int, self.subgraph.outputs)

    def replace(self, operator: Any, *by: Any) -> None:
        """Put operators in the place of one."""
        place = next(i for i, op in enumerate(self.subgraph.operators) if op is operator)
        self.subgraph.operators[place : place + 1] = by

    def read_instead(self, old: int, new: int) -> None:
        """Let all that read one tensor read another."""
        for operator in self.readers(old):
            operator.inputs = [new if int(index) == old else int(index) for index in operator.inputs]
