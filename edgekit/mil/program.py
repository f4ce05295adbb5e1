"""A program as the evaluator runs it: blocks of operations with named values, made from a package's specification."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.mil.blobs import BlobFiles
from edgekit.mil.failures import MilError
from edgekit.mil.package import Package
from edgekit.mil.values import DATA_TYPES, Array, PackedIntegers, ValueType, unpack_bits

#: an argument is the name of a value, a constant, or a list of them
Argument = Any
#: parameters that are lists whatever their length
_LISTS = frozenset({"values", "loop_vars"})


@dataclass(frozen=True, kw_only=True)
class Name:
    """Refers to a value by its name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation: its kind, its arguments by parameter, and its named and typed outputs."""

    kind: str
    arguments: dict[str, Argument]
    outputs: tuple[tuple[str, ValueType], ...]
    blocks: tuple["Block", ...]
    place: str

    def names(self) -> Iterator[str]:
        """The values that it reads, those of its inner blocks included."""
        for argument in self.arguments.values():
            for each in argument if isinstance(argument, list) else [argument]:
                if isinstance(each, Name):
                    yield each.name
        for block in self.blocks:
            yield from block.outputs
            for operation in block.operations:
                yield from operation.names()


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operations in order; `constants` are values that need no computing."""

    inputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function of a program; its inputs that are states keep their value between calls."""

    name: str
    opset: str
    inputs: dict[str, ValueType]
    block: Block


def read_functions(package: Package, known: Collection[str]) -> dict[str, Function]:
    """The functions of a package's program; `known` are the operations that can be evaluated.

    Raises MilError("load-failed"): an operation that is not known (it names the operation and where it is), a weight
    that is missing or not at its place, a type that is not known.
    """
    program = package.specification.mlProgram
    reader = _Reader(package.blobs)
    functions = {}
    for name, function in program.functions.items():
        if function.opset not in function.block_specializations:
            raise MilError("load-failed", f"the function {name!r} has no operations for its opset {function.opset!r}")
        inputs = {each.name: read_type(each.type) for each in function.inputs}
        block = reader.block(function.block_specializations[function.opset], f"function {name!r}")
        functions[name] = Function(name=name, opset=function.opset, inputs=inputs, block=block)
    if not functions:
        raise MilError("load-failed", f"{package.path} holds a program without functions")
    _check_known(package, functions, known)
    return functions


def all_operations(block: Block) -> Iterator[Operation]:
    """Every operation of a block, those of inner blocks included."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from all_operations(inner)


def _check_known(package: Package, functions: dict[str, Function], known: Collection[str]) -> None:
    missing = [
        operation
        for function in functions.values()
        for operation in all_operations(function.block)
        if operation.kind not in known
    ]
    if missing:
        kinds = sorted({operation.kind for operation in missing} - {missing[0].kind})
        others = f", nor {', '.join(kinds)}" if kinds else ""
        raise MilError(
            "load-failed",
            f"{package.path}: edgekit does not evaluate the operation {missing[0].kind!r} ({missing[0].place}){others}",
        )


def read_type(declared: Any) -> ValueType:
    """The type of a value as the specification declares it."""
    kind = declared.WhichOneof("type")
    if kind == "stateType":
        inner = read_type(declared.stateType.wrappedType)
        return ValueType(data_type=inner.data_type, shape=inner.shape, is_state=True)
    if kind in ("dictionaryType", "listType"):
        return ValueType(data_type="DICTIONARY", shape=None)
    if kind != "tensorType":
        raise MilError("load-failed", f"a value of the type {kind} is not one that edgekit evaluates")
    tensor = declared.tensorType
    name = _type_name(tensor.dataType)
    if name not in DATA_TYPES:
        raise MilError("load-failed", f"values of {name} are not evaluated by edgekit")
    if any(each.WhichOneof("dimension") == "unknown" and each.unknown.variadic for each in tensor.dimensions):
        return ValueType(data_type=name, shape=None)
    if tensor.rank == -1:
        return ValueType(data_type=name, shape=None)
    sizes = (int(each.constant.size) if each.HasField("constant") else None for each in tensor.dimensions)
    return ValueType(data_type=name, shape=tuple(sizes))


def _type_name(number: int) -> str:
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(number))


class _Reader:
    """Reads blocks and constants of one package."""

    def __init__(self, blobs: BlobFiles) -> None:
        self._blobs = blobs

    def block(self, specification: Any, where: str) -> Block:
        operations, constants = [], {}
        for number, each in enumerate(specification.operations, 1):
            if each.type == "const":
                name = each.outputs[0].name
                constants[name] = self.value(each.attributes["val"], name)
            else:
                operations.append(self._operation(each, number, where))
        return Block(
            inputs=tuple(each.name for each in specification.inputs),
            operations=tuple(operations),
            outputs=tuple(specification.outputs),
            constants=constants,
        )

    def _operation(self, specification: Any, number: int, where: str) -> Operation:
        outputs = tuple((each.name, read_type(each.type)) for each in specification.outputs)
        written = repr(outputs[0][0]) if outputs else "nothing"
        place = f"operation {number} of {where}, which writes {written}"
        # Compressed weights of iOS 16 have their parameters as attributes, all other operations as inputs.
        arguments = {
            key: self.value(value, f"{key} of {place}")
            for key, value in specification.attributes.items()
            if key != "name"
        }
        for key, given in specification.inputs.items():
            bound = [self._binding(each, place) for each in given.arguments]
            arguments[key] = bound if key in _LISTS or len(bound) != 1 else bound[0]
        blocks = tuple(self.block(each, f"a block of {place}") for each in specification.blocks)
        return Operation(kind=specification.type, arguments=arguments, outputs=outputs, blocks=blocks, place=place)

    def _binding(self, binding: Any, place: str) -> Argument:
        if binding.WhichOneof("binding") == "name":
            return Name(name=binding.name)
        return self.value(binding.value, f"a constant of {place}")

    def value(self, value: Any, name: str) -> Any:
        """A constant: an array, packed integers, or what is no tensor as a list."""
        if value.WhichOneof("value") == "immediateValue" and value.immediateValue.WhichOneof("value") == "list":
            return np.array([self.value(each, name).item() for each in value.immediateValue.list.values])
        declared = read_type(value.type)
        if declared.data_type == "DICTIONARY" or declared.shape is None or None in declared.shape:
            raise MilError("load-failed", f"the constant {name!r} is of no type that edgekit evaluates")
        shape = tuple(size for size in declared.shape if size is not None)
        if value.WhichOneof("value") == "blobFileValue":
            blob = value.blobFileValue
            return self._blobs.read(name, blob.fileName, int(blob.offset), declared.data_type, shape)
        return _immediate(value.immediateValue.tensor, declared, shape, name)


def _immediate(tensor: Any, declared: ValueType, shape: tuple[int, ...], name: str) -> Array | PackedIntegers:
    kind = tensor.WhichOneof("value")
    data_type = DATA_TYPES[declared.data_type]
    if kind == "bytes":
        content = np.frombuffer(tensor.bytes.values, np.uint8)
        if data_type.bits < 8:
            return unpack_bits(content, data_type.bits, shape, signed=declared.data_type.startswith("INT"))
        values = content.view(data_type.dtype)
    elif kind is None:
        values = np.zeros(0, declared.dtype)
    else:
        values = np.array(list(getattr(tensor, kind).values), dtype=declared.dtype)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise MilError("load-failed", f"the constant {name!r} has {values.size} values, not those of {list(shape)}")
    return values.reshape(shape)
