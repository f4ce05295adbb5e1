"""What keeps Apple's Neural Engine (ANE) from running a Core ML package, or from running it fast.

Read from the package alone, by rules that others have published: each names its source. Core ML decides for itself, on
the device; what it decides is measured there, by `bench` with its compute plan.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.export.describe_coreml import all_operations, read_specification
from edgekit.export.lint.findings import Effect, Finding
from edgekit.extras import require
from edgekit.mil.package import package_paths

_SHOWN = 3  # names of outputs in a finding
_ALIGNED_BYTES = 64
_MOST_SHAPES = 128
_HIGHEST_RANK = 5
_BITS = {"FLOAT16": 16, "FLOAT32": 32, "INT32": 32, "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8}

APPLE_TRANSFORMERS = "https://machinelearning.apple.com/research/neural-engine-transformers"
TYPED_EXECUTION = "https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html"
FLEXIBLE_INPUTS = "https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html"
APPLE_FORUM_RANGES = "https://developer.apple.com/forums/thread/724930"
UNSUPPORTED_LAYERS = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md"
GRAPH_PASSES = "https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.passes.defs.html"

#: operations that were seen to run elsewhere → what they are in that list
_UNSUPPORTED = {
    "gather": "gather",
    "gather_along_axis": "gather",
    "gather_nd": "gather",
    "lstm": "recurrent layers",
    "gru": "recurrent layers",
    "rnn": "recurrent layers",
    "custom_layer": "custom layers",
}
_PRODUCTS = ("linear", "matmul", "einsum")
_MOVES = ("transpose", "reshape")


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """Type and shape of a value; None for a size that is not fixed."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class _Operation:
    kind: str
    inputs: dict[str, _Tensor]
    output: _Tensor
    dilated: bool


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """`applies` tells why the rule finds an operation, or nothing; a `whole` rule has one finding for all kinds."""

    name: str
    effect: Effect
    applies: Callable[[_Operation], str | None]
    advice: str
    source: str
    whole: bool = False


def lint_mlpackage(path: Path) -> list[Finding]:
    """The findings for an .mlpackage or a folder of them, by function and rule; those that fall back first.

    Raises BundleError for a package that can't be read, MissingExtraError without coremltools.
    """
    names = require("coremltools", f"reading {path.name}").proto.MIL_pb2.DataType.Name
    findings: list[Finding] = []
    for only, package in package_paths(path).items():
        spec = read_specification(package)
        findings += _input_findings(spec.description, only)
        for name, function in sorted(spec.mlProgram.functions.items()):
            operations = list(_read(function, names))
            for rule in RULES:
                findings += _apply(rule, only or name, operations)
    return sorted(findings, key=lambda finding: (finding.effect != "falls back", finding.function))


def _apply(rule: _Rule, function: str, operations: list[_Operation]) -> Iterator[Finding]:
    """One finding for each kind of operation and each reason."""
    found: dict[tuple[str, str], list[_Operation]] = {}
    for operation in operations:
        why = rule.applies(operation)
        if why:
            found.setdefault(("" if rule.whole else operation.kind, why), []).append(operation)
    for (_, why), places in found.items():
        yield Finding(
            rule=rule.name,
            effect=rule.effect,
            function=function,
            operation=", ".join(dict.fromkeys(each.kind for each in places)),
            count=len(places),
            where=tuple(each.output.name for each in places[:_SHOWN]),
            why=why,
            advice=rule.advice,
            source=rule.source,
        )


def _input_findings(description: Any, only: str) -> Iterator[Finding]:
    for function in [description, *description.functions]:
        for feature in function.input:
            array = feature.type.multiArrayType
            name = getattr(function, "name", "") or only or "main"
            if any(each.lowerBound != each.upperBound for each in array.shapeRange.sizeRanges):
                why = "with a range of lengths only the default one runs on the ANE"
                yield _input_finding("range", "falls back", name, feature.name, why, APPLE_FORUM_RANGES)
            if len(array.enumeratedShapes.shapes) > _MOST_SHAPES:
                why = f"{len(array.enumeratedShapes.shapes)} enumerated shapes; Core ML takes up to {_MOST_SHAPES}"
                yield _input_finding("enumerated-shapes", "falls back", name, feature.name, why, FLEXIBLE_INPUTS)


def _input_finding(rule: str, effect: Effect, function: str, name: str, why: str, source: str) -> Finding:
    advice = "give the lengths one by one: edgekit export --sequence-length 16,32,64,128"
    return Finding(
        rule=rule,
        effect=effect,
        function=function,
        operation="input",
        count=1,
        where=(name,),
        why=why,
        advice=advice,
        source=source,
    )


def _read(function: Any, names: Callable[[int], str]) -> Iterator[_Operation]:
    """The operations that compute: no constants, and no compressed weights, which are unpacked when it is loaded."""
    known = {each.name: _tensor(each, names) for each in function.inputs}
    integers: dict[str, list[int]] = {}  # small constants, by name
    for operation in all_operations(function):
        outputs = [_tensor(each, names) for each in operation.outputs]
        known.update({each.name: each for each in outputs})
        if operation.type == "const":
            integers[outputs[0].name] = list(operation.attributes["val"].immediateValue.tensor.ints.values)
        if operation.type == "const" or operation.type.startswith("constexpr_") or not outputs:
            continue
        arguments = {name: [a.name for a in given.arguments] for name, given in operation.inputs.items()}
        inputs = {name: known[given[0]] for name, given in arguments.items() if given and given[0] in known}
        dilations = integers.get(arguments.get("dilations", [""])[0], [])
        yield _Operation(kind=operation.type, inputs=inputs, output=outputs[0], dilated=any(d > 1 for d in dilations))


def _tensor(named: Any, names: Callable[[int], str]) -> _Tensor:
    tensor = named.type.tensorType
    sizes = (int(d.constant.size) if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return _Tensor(name=named.name, dtype=names(tensor.dataType), shape=tuple(sizes))


def _float32(operation: _Operation) -> str | None:
    wide = operation.output.dtype == "FLOAT32" and operation.kind != "cast"
    return "float32 arithmetic runs on the CPU and the GPU only" if wide else None


def _integers(operation: _Operation) -> str | None:
    counted = operation.output.dtype == "INT32" and operation.kind not in ("cast", *_UNSUPPORTED)
    return "integer arithmetic: the ANE computes in float16" if counted else None


def _unsupported(operation: _Operation) -> str | None:
    if operation.dilated:
        return "dilated convolutions were seen to run elsewhere"
    what = _UNSUPPORTED.get(operation.kind)
    return f"{what} was seen to run elsewhere" if what else None


def _rank(operation: _Operation) -> str | None:
    rank = len(operation.output.shape)
    return f"a tensor of rank {rank}; Core ML's runtime takes up to {_HIGHEST_RANK}" if rank > _HIGHEST_RANK else None


def _layout(operation: _Operation) -> str | None:
    tensor = operation.inputs.get("x")
    if operation.kind not in _PRODUCTS or tensor is None or len(tensor.shape) == 4:
        return None
    return f"a product of rank {len(tensor.shape)}, channels last; the ANE's own layout is (batch, channels, 1, length)"


def _heads(operation: _Operation) -> str | None:
    shape = operation.output.shape
    several = operation.kind == "matmul" and len(shape) == 4 and (shape[1] or 1) > 1
    return "all heads in one product; one for each is likelier to stay in the ANE's cache" if several else None


def _last_axis(operation: _Operation) -> str | None:
    shape, bits = operation.output.shape, _BITS.get(operation.output.dtype)
    if len(shape) < 3 or bits is None or shape[-1] is None or shape[-1] == 0 or operation.output.dtype == "INT32":
        return None
    used = shape[-1] * bits // 8
    stored = math.ceil(used / _ALIGNED_BYTES) * _ALIGNED_BYTES
    if stored < 2 * used:
        return None
    return f"a last axis of {shape[-1]}, padded to {_ALIGNED_BYTES} bytes: {stored / used:.0f} times the memory"


def _moves(operation: _Operation) -> str | None:
    return "copies memory and computes nothing" if operation.kind in _MOVES else None


_CONVOLUTIONS = (
    "keep tensors as (batch, channels, 1, length) from the first layer to the last, with 1×1 convolutions for linear "
    "layers; Apple's ane_transformers shows how"
)
RULES = (
    _Rule(
        name="float32",
        effect="falls back",
        applies=_float32,
        advice="export with --quantize fp16 (schemes of weights alone compute in float32)",
        source=TYPED_EXECUTION,
        whole=True,
    ),
    _Rule(
        name="integers",
        effect="falls back",
        applies=_integers,
        advice="compute masks and positions in the app, and give them as float inputs",
        source="https://github.com/hollance/neural-engine/blob/master/docs/16-bit.md",
    ),
    _Rule(
        name="unsupported-operation",
        effect="falls back",
        applies=_unsupported,
        advice="none needed where it comes first (an embedding): one change of unit; elsewhere, rewrite it",
        source=UNSUPPORTED_LAYERS,
    ),
    _Rule(name="rank", effect="falls back", applies=_rank, advice="merge axes of size 1", source=GRAPH_PASSES),
    _Rule(name="layout", effect="slower", applies=_layout, advice=_CONVOLUTIONS, source=APPLE_TRANSFORMERS),
    _Rule(
        name="heads",
        effect="slower",
        applies=_heads,
        advice="split query, key and value into one product for each head",
        source=APPLE_TRANSFORMERS,
    ),
    _Rule(
        name="last-axis",
        effect="slower",
        applies=_last_axis,
        advice="put the longest axis last (a sequence length of 32 or more fills 64 bytes in float16)",
        source=APPLE_TRANSFORMERS,
    ),
    _Rule(name="memory-copies", effect="slower", applies=_moves, advice=_CONVOLUTIONS, source=APPLE_TRANSFORMERS),
)
