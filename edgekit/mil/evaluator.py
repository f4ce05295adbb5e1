"""Runs a program on numpy arrays, operation by operation; a value is freed after its last use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.mil import operations
from edgekit.mil.failures import MilError, first_line
from edgekit.mil.package import Package, open_package, package_paths
from edgekit.mil.ports import Port, check_input, input_ports, output_ports, state_ports
from edgekit.mil.program import Block, Function, Name, Operation, all_operations, read_functions
from edgekit.mil.registry import OPERATIONS
from edgekit.mil.values import Array, PackedIntegers, Precision, check_shape, round_to

#: called with every computed value: its operation, its name, the value
Watch = Callable[[Operation, str, Array], None]
_CONTROL = ("cond", "while_loop")
_STATES = ("read_state", "write_state", "coreml_update_state")


class Evaluator:
    """A program, ready to run; `functions` of a package without names for them is its only one, "".

    Several packages, by their names, are functions of those names.

    `precision`: "program" rounds every value to its declared type (products are summed in float32 first; what
    overflows becomes infinite), "fp32" keeps all floats in float32. States keep their values between calls.
    """

    def __init__(self, packages: Mapping[str, Package], *, precision: Precision = "program") -> None:
        operations.load_all()
        self._precision: Precision = precision
        self._functions: dict[str, Function] = {}
        self.inputs: dict[str, dict[str, Port]] = {}
        self.outputs: dict[str, dict[str, Port]] = {}
        self.states: dict[str, dict[str, Port]] = {}
        self._default = "main"
        for key, package in packages.items():
            self._add(package, key)
        self._last_uses: dict[int, list[tuple[str, ...]]] = {}
        self._kept: dict[str, Array] = {}

    def _add(self, package: Package, only: str) -> None:
        """Add the functions of a package, by their names, or the `only` one by this."""
        functions = read_functions(package, {*OPERATIONS, *_CONTROL, *_STATES})
        description = package.specification.description
        self._default = description.defaultFunctionName or "main"
        described = {each.name: each for each in description.functions} or {"main": description}
        for name, each in described.items():
            if name not in functions:
                raise MilError("load-failed", f"{package.path} describes a function {name!r} that its program lacks")
            key = name if description.functions else only
            self._functions[key or name] = functions[name]
            self.inputs[key] = input_ports(each, functions[name])
            self.outputs[key] = output_ports(each)
            self.states[key] = state_ports(functions[name])

    @property
    def functions(self) -> dict[str, Function]:
        """The functions of the program by name."""
        return self._functions

    def reset_states(self) -> None:
        """Forget what calls left in the states: they are zeros again."""
        self._kept.clear()

    def write_state(self, name: str, value: Array) -> None:
        """Let the next calls find `value` in a state; raises MilError("bad-input") for one that does not fit."""
        port = next((ports[name] for ports in self.states.values() if name in ports), None)
        if port is None:
            raise MilError("bad-input", f"the package has no state {name!r}")
        checked = check_input(name, port, value)
        self._kept[name] = np.array(value if self._precision == "fp32" and value.dtype == np.float32 else checked)

    def read_state(self, name: str) -> Array:
        """Return a copy of what a call left in a state."""
        return self._kept[name].copy()

    def run(self, inputs: Mapping[str, Array], function: str = "", *, watch: Watch | None = None) -> dict[str, Array]:
        """Call a function ("": the only one) with its inputs by name; its outputs by name.

        Raises MilError: "bad-input" for inputs that contradict the package, "run-failed" for an operation that can't
        be computed, with its place.
        """
        if function not in self.inputs:
            raise MilError("bad-input", f"the package has no function {function!r}: it has {', '.join(self.inputs)}")
        ports = self.inputs[function]
        for name in inputs:
            if name not in ports:
                raise MilError("bad-input", f"the package has no input {name!r}: it takes {', '.join(ports)}")
        called = self._functions[function or self._default]
        scope = {
            name: round_to(check_input(name, port, inputs.get(name)), called.inputs[name], self._precision)
            for name, port in ports.items()
        }
        self._prepare_states(called)
        results = self._block(called.block, _Scope(scope, None), watch)
        return {name: np.array(results[name]) for name in self.outputs[function]}

    def _prepare_states(self, function: Function) -> None:
        for name, declared in function.inputs.items():
            if declared.is_state and name not in self._kept:
                shape = tuple(size or 1 for size in declared.shape or ())
                self._kept[name] = round_to(np.zeros(shape, declared.dtype), declared, self._precision)

    def _block(self, block: Block, scope: "_Scope", watch: Watch | None) -> dict[str, Any]:
        scope.values.update(block.constants)
        for operation, freed in zip(block.operations, self._freed(block), strict=True):
            results = self._operation(operation, scope, watch)
            for (name, _), value in zip(operation.outputs, results, strict=True):
                scope.values[name] = value
                if watch:
                    watch(operation, name, value)
            for name in freed:
                scope.values.pop(name, None)
        return {name: scope[name] for name in block.outputs}

    def _freed(self, block: Block) -> list[tuple[str, ...]]:
        """For each operation, the values that nothing reads after it."""
        if id(block) not in self._last_uses:
            last: dict[str, int] = {}
            for index, operation in enumerate(block.operations):
                last.update(dict.fromkeys((name for name, _ in operation.outputs), index))
                last.update(dict.fromkeys(operation.names(), index))
            freed: list[list[str]] = [[] for _ in block.operations]
            for name in last.keys() - block.outputs - block.constants.keys():
                freed[last[name]].append(name)
            self._last_uses[id(block)] = [tuple(names) for names in freed]
        return self._last_uses[id(block)]

    def _operation(self, operation: Operation, scope: "_Scope", watch: Watch | None) -> list[Array]:
        try:
            results = self._compute(operation, scope, watch)
            if len(results) != len(operation.outputs):
                raise MilError("run-failed", f"it gave {len(results)} values for {len(operation.outputs)} outputs")
            rounded = [
                round_to(value, declared, self._precision)
                for value, (_, declared) in zip(results, operation.outputs, strict=True)
            ]
            for value, (_, declared) in zip(rounded, operation.outputs, strict=True):
                check_shape(value, declared)
        except (ArithmeticError, TypeError, ValueError, LookupError, MilError) as error:
            if isinstance(error, MilError) and error.message_has_place:
                raise
            message = f"the operation {operation.kind!r} ({operation.place}) can't be computed: {first_line(error)}"
            raise MilError("run-failed", message, message_has_place=True) from error
        return rounded

    def _compute(self, operation: Operation, scope: "_Scope", watch: Watch | None) -> Sequence[Any]:
        if operation.kind in _STATES:
            return self._state(operation, scope)
        if operation.kind in _CONTROL:
            return self._control(operation, scope, watch)
        implementation = OPERATIONS[operation.kind]
        arguments = {
            key: _resolved(argument, scope, widen=not implementation.moves)
            for key, argument in operation.arguments.items()
        }
        with np.errstate(all="ignore"):  # infinities and NaN are results, and are counted by who asked
            result = implementation.compute(**arguments)
        return result if isinstance(result, tuple) else (result,)

    def _state(self, operation: Operation, scope: "_Scope") -> Sequence[Any]:
        given = operation.arguments
        state = (given.get("input") or given["state"]).name
        if operation.kind == "read_state":
            return (self._kept[state].copy(),)
        value = _resolved(given.get("data", given.get("value")), scope, widen=False)
        self._kept[state] = np.array(value, dtype=self._kept[state].dtype)
        return (value,) if operation.outputs else ()

    def _control(self, operation: Operation, scope: "_Scope", watch: Watch | None) -> Sequence[Any]:
        if operation.kind == "cond":
            chosen = operation.blocks[0 if _resolved(operation.arguments["pred"], scope, widen=False) else 1]
            results = self._block(chosen, _Scope({}, scope), watch)
            return [results[name] for name in chosen.outputs]
        condition, body = operation.blocks
        values = [_resolved(each, scope, widen=False) for each in operation.arguments["loop_vars"]]
        while True:
            inner = _Scope(dict(zip(condition.inputs, values, strict=True)), scope)
            if not self._block(condition, inner, watch)[condition.outputs[0]]:
                return values
            results = self._block(body, _Scope(dict(zip(body.inputs, values, strict=True)), scope), watch)
            values = [results[name] for name in body.outputs]


class _Scope:
    """Values by name, and the scope around an inner block."""

    def __init__(self, values: dict[str, Any], outer: "_Scope | None") -> None:
        self.values, self.outer = values, outer

    def __getitem__(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if self.outer is None:
            raise LookupError(f"there is no value {name!r}")
        return self.outer[name]


def _resolved(argument: Any, scope: _Scope, *, widen: bool) -> Any:
    """An argument's value; float16 becomes float32 where it is to be computed with."""
    if isinstance(argument, list):
        return [_resolved(each, scope, widen=widen) for each in argument]
    value = scope[argument.name] if isinstance(argument, Name) else argument
    if widen and not isinstance(value, PackedIntegers) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def load_evaluator(path: Path, *, precision: Precision = "program") -> Evaluator:
    """Read a package and make it ready to run; raises MilError as `open_package` and `Evaluator` do."""
    packages = {name: open_package(each) for name, each in package_paths(path).items()}
    return Evaluator(packages, precision=precision)


def holds_float16(evaluator: Evaluator) -> bool:
    """Whether a program declares any value as float16."""
    return any(
        declared.data_type == "FLOAT16"
        for function in evaluator.functions.values()
        for operation in all_operations(function.block)
        for _, declared in operation.outputs
    )


def operation_kinds(evaluator: Evaluator) -> Iterator[str]:
    """The kind of each operation of all functions, in order."""
    for function in evaluator.functions.values():
        yield from (operation.kind for operation in all_operations(function.block))
