"""Random inputs that a program takes: integers that its tables have rows for, masks of zeros and ones."""

from collections.abc import Iterator

import numpy as np

from edgekit.mil.evaluator import Evaluator
from edgekit.mil.ports import Port, Size
from edgekit.mil.program import Block, Name, Operation
from edgekit.mil.values import Array, PackedIntegers

#: what an integer passes through on its way to a table
_CARRIES = frozenset(
    {"add", "cast", "clip", "concat", "expand_dims", "identity", "maximum", "minimum", "reshape", "select"}
    | {"slice_by_index", "slice_by_size", "split", "squeeze", "sub", "tile", "transpose"}
)
_TABLES = ("gather", "gather_along_axis")
_LONGEST = 64  # elements of a size without an upper bound


def random_inputs(evaluator: Evaluator, function: str = "", seed: int = 0) -> dict[str, Array]:
    """One array for each input of a function, the same for the same seed.

    Integers are rows of the smallest table that they reach; those that reach none are 0 or 1, as masks are, at least
    one of each row 1. Flexible sizes take the first that is declared, or the largest up to 64.
    """
    generator = np.random.default_rng(seed)
    limits = dict(_table_sizes(evaluator, function))
    return {name: _draw(generator, port, limits.get(name)) for name, port in evaluator.inputs[function].items()}


def _draw(generator: np.random.Generator, port: Port, rows: int | None) -> Array:
    shape = tuple(_size(size) for size in port.shapes[0])
    if port.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(port.dtype)
    if rows is not None:
        return generator.integers(0, rows, shape).astype(port.dtype)
    present = generator.integers(0, 2, shape)
    present[..., :1] = 1
    return present.astype(port.dtype)


def _size(size: Size) -> int:
    if isinstance(size, int):
        return size
    least, most = size
    return max(least, min(_LONGEST, most if most is not None else _LONGEST))


def _table_sizes(evaluator: Evaluator, function: str) -> Iterator[tuple[str, int]]:
    called = evaluator.functions[function] if function else next(iter(evaluator.functions.values()))
    for name in called.inputs:
        reached, sizes = {name}, []
        for operation in called.block.operations:
            indices = operation.arguments.get("indices")
            if operation.kind in _TABLES and isinstance(indices, Name) and indices.name in reached:
                sizes.append(_rows(operation, called.block))
            elif operation.kind in _CARRIES and reached & set(operation.names()):
                reached |= {output for output, _ in operation.outputs}
        known = [size for size in sizes if size is not None]
        if known:
            yield name, min(known)


def _rows(operation: Operation, block: Block) -> int | None:
    """How many rows the table of a gather has; None where it is not known beforehand."""
    table, axis = operation.arguments["x"], operation.arguments.get("axis", 0)
    if not isinstance(table, Name):
        return None
    along = int(block.constants[axis.name] if isinstance(axis, Name) else axis)
    if table.name in block.constants:
        constant: Array | PackedIntegers = block.constants[table.name]
        return int(constant.shape[along])
    declared = {name: kind for each in block.operations for name, kind in each.outputs}
    shape = declared[table.name].shape if table.name in declared else None
    return shape[along] if shape else None
