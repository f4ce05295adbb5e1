"""Changes to a TFLite model that was read: new tensors, constants, operators; what nothing reads any more."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray


def add_tensor(subgraph: Any, name: bytes, dtype: int, shape: list[int], buffer: int = 0) -> int:
    """Append a tensor; its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, dtype, buffer
    tensor.shape = np.asarray(shape, np.int32)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def add_shape(model: Any, subgraph: Any, name: bytes, shape: Any) -> int:
    """Append a constant of int32 numbers, such as a shape; its index."""
    buffer = add_buffer(model, np.asarray(shape, np.int32))
    return add_tensor(subgraph, name, schema.TensorType.INT32, [len(shape)], buffer)


def add_buffer(model: Any, values: NDArray[Any]) -> int:
    """A buffer of these values: one that there is, as subgraphs of several signatures share theirs, or a new one."""
    content = values.tobytes()
    for index, known in enumerate(model.buffers):
        if known.data is not None and len(known.data) == len(content) and bytes(known.data) == content:
            return index
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def empty_unread_buffers(model: Any) -> None:
    """Take the values from constants that nothing reads any more; the tensors stay, for others are known by number."""
    read = {entry.buffer for entry in model.metadata or ()}
    for subgraph in model.subgraphs:
        used = {index for operator in subgraph.operators for index in operator.inputs} | set(subgraph.outputs)
        read |= {subgraph.tensors[index].buffer for index in used if index >= 0}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def make_operator(model: Any, builtin: int, inputs: list[int], outputs: list[int]) -> Any:
    """An operator of this kind, not yet in a subgraph."""
    operator = schema.OperatorT()
    operator.opcodeIndex = find_opcode(model, builtin)
    operator.inputs, operator.outputs = inputs, outputs
    if builtin == schema.BuiltinOperator.SLICE:  # without the options' type, quantizers take it for broken
        operator.builtinOptionsType, operator.builtinOptions = (
            schema.BuiltinOptions.SliceOptions,
            schema.SliceOptionsT(),
        )
    return operator


def find_opcode(model: Any, builtin: int) -> int:
    """The number of a kind of operator in this file, which gets one where it has none."""
    for index in range(len(model.operatorCodes)):
        if code_of(model, index) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def code_of(model: Any, index: int) -> int:
    """The kind of operator that has this number in the file."""
    code = model.operatorCodes[index]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def constant_of(model: Any, subgraph: Any, index: int) -> NDArray[np.float32] | None:
    """The values of a float32 constant; None for any other tensor."""
    tensor = subgraph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
    return np.frombuffer(bytes(data), np.float32).reshape(shape)


def replace_constant(subgraph: Any, index: int, buffer: int) -> int:
    """The tensor, now with the values of `buffer`; a new one where another operator reads it too."""
    tensor = subgraph.tensors[index]
    readers = sum(list(operator.inputs).count(index) for operator in subgraph.operators)
    if readers > 1:
        return add_tensor(subgraph, tensor.name + b";own", tensor.type, [int(size) for size in tensor.shape], buffer)
    tensor.buffer = buffer
    return index
