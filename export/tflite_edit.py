"""Changes to a TFLite model that was read (`ModelT`): new tensors, constants and operators in its subgraphs."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

#: operators that quantizers, and OpenVINO, take for broken where the type of their options is missing
_OPTIONS = {
    schema.BuiltinOperator.SLICE: (schema.BuiltinOptions.SliceOptions, schema.SliceOptionsT),
    schema.BuiltinOperator.MUL: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
    schema.BuiltinOperator.SUB: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
    schema.BuiltinOperator.GATHER: (schema.BuiltinOptions.GatherOptions, schema.GatherOptionsT),
    schema.BuiltinOperator.BITCAST: (schema.BuiltinOptions.BitcastOptions, schema.BitcastOptionsT),
    schema.BuiltinOperator.CONCATENATION: (schema.BuiltinOptions.ConcatenationOptions, schema.ConcatenationOptionsT),
    schema.BuiltinOperator.TRANSPOSE: (schema.BuiltinOptions.TransposeOptions, schema.TransposeOptionsT),
    schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE: (
        schema.BuiltinOptions.DynamicUpdateSliceOptions,
        schema.DynamicUpdateSliceOptionsT,
    ),
}
#: the largest number in the field of operators' kinds that old readers know; above it, it says "see the other field"
_LARGEST_OLD = 127

#: the first version that knows int8, where that is not the first of all
_VERSIONS = {schema.BuiltinOperator.DEQUANTIZE: 2}


def add_tensor(subgraph: Any, name: bytes, dtype: int, shape: list[int], buffer: int = 0) -> int:
    """Add a tensor to a subgraph, computed where it has no buffer; its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, dtype, buffer
    tensor.shape = np.asarray(shape, np.int32)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def add_shape(model: Any, subgraph: Any, name: bytes, shape: Any) -> int:
    """Add an int32 constant of one axis; its tensor's index."""
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


def drop_unread_buffers(model: Any) -> None:
    """Take the values from constants that nothing reads any more; the tensors stay, for others are known by number."""
    read = {entry.buffer for entry in model.metadata or ()}
    for subgraph in model.subgraphs:
        used = {index for operator in subgraph.operators for index in operator.inputs} | set(subgraph.outputs)
        tensors = [subgraph.tensors[index] for index in used if index >= 0]
        read |= {tensor.buffer for tensor in tensors}
        details = [tensor.quantization.details for tensor in tensors if tensor.quantization is not None]
        # scales of blocks are in a tensor of their own, which no operator reads
        read |= {subgraph.tensors[each.scales].buffer for each in details if hasattr(each, "scales")}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def drop_unread_operators(subgraph: Any) -> None:
    """Take out operators whose results nothing reads any more."""
    wanted = {int(index) for index in subgraph.outputs}
    kept: list[Any] = []
    for operator in reversed(subgraph.operators):
        if any(int(index) in wanted for index in operator.outputs):
            kept.append(operator)
            wanted |= {int(index) for index in operator.inputs}
    subgraph.operators = kept[::-1]


def drop_unread_codes(model: Any) -> None:
    """Leave out the kinds of operators that no operator is of: old runtimes refuse a file for a version of such."""
    operators = [operator for subgraph in model.subgraphs for operator in subgraph.operators]
    kept = sorted({int(operator.opcodeIndex) for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in kept]
    for operator in operators:
        operator.opcodeIndex = kept.index(int(operator.opcodeIndex))


def make_operator(model: Any, builtin: int, inputs: list[int], outputs: list[int]) -> Any:
    """An operator of a kind, for a subgraph's list."""
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, builtin)
    operator.inputs, operator.outputs = inputs, outputs
    if builtin in _OPTIONS:
        kind, options = _OPTIONS[builtin]
        operator.builtinOptionsType, operator.builtinOptions = kind, options()
    return operator


def kind_of(model: Any, operator: Any) -> int:
    """The kind of an operator, of schema.BuiltinOperator."""
    return _code(model, operator.opcodeIndex)


def float_table(model: Any, tensor: Any) -> bool:
    """Whether a tensor is a constant float32 matrix."""
    constant = model.buffers[tensor.buffer].data is not None
    return bool(constant and tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 2)


def float_values(model: Any, tensor: Any) -> NDArray[np.float32]:
    """The values of a constant float32 tensor."""
    shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(shape)


def constant_of(model: Any, subgraph: Any, index: int) -> NDArray[np.float32] | None:
    """The values of a float32 constant; None for any other tensor."""
    tensor = subgraph.tensors[index]
    constant = model.buffers[tensor.buffer].data is not None and tensor.type == schema.TensorType.FLOAT32
    return float_values(model, tensor) if constant else None


def replace_constant(subgraph: Any, index: int, buffer: int) -> int:
    """The tensor, now with the values of `buffer`; a new one where another operator reads it too."""
    tensor = subgraph.tensors[index]
    readers = sum(list(operator.inputs).count(index) for operator in subgraph.operators)
    if readers > 1:
        return add_tensor(subgraph, tensor.name + b";own", tensor.type, [int(size) for size in tensor.shape], buffer)
    tensor.buffer = buffer
    return index


def _opcode(model: Any, builtin: int) -> int:
    for index in range(len(model.operatorCodes)):
        if _code(model, index) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, _LARGEST_OLD)
    code.version = _VERSIONS.get(builtin, 1)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _code(model: Any, index: int) -> int:
    code = model.operatorCodes[index]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))
