"""TFLite: the cache of a model that writes as int8 between calls, a quarter of its memory.

What a call gives, `present…`, is packed with the scale that it is unpacked with where it is taken, `past_key_values…`:
what was packed once comes back as it was. New rows are packed before they are written into the cache, so that it stays
where it lies. Scales are those of the largest value seen on real texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.tflite_edit import add_tensor, drop_unread_operators, kind_of, make_operator
from edgekit.export.tflite_writer import write_model
from edgekit.proof.golden import Arrays, Step
from edgekit.proof.writing import Prompt
from edgekit.sources.writers import DECODE, ENCODE

_PAST, _PRESENT = "past_key_values", "present"
_LARGEST = 127


def quantize_cache(source: Path, output: Path, texts: Sequence[Prompt]) -> None:
    """Write the file `source` to `output` with the caches that it takes and gives as int8; scales are from `texts`."""
    scales = {name: max(largest, 1e-6) / _LARGEST for name, largest in _largest_values(source, texts).items()}
    model = flatbuffer_utils.read_model(str(source))
    for definition in model.signatureDefs:
        subgraph = model.subgraphs[definition.subgraphIndex]
        before, after = [], []
        for entry in definition.inputs:
            if (key := _key(entry.name.decode(), _PAST)) is not None:
                before.append(_packed(model, subgraph, entry, scales[key], taken=True))
        for entry in definition.outputs:
            if (key := _key(entry.name.decode(), _PRESENT)) is not None:
                after.append(_packed(model, subgraph, entry, scales[key], taken=False))
        operators = [*before, *subgraph.operators, *after]
        for made in after:
            operators = _written_packed(model, subgraph, operators, made)
        subgraph.operators = operators
        drop_unread_operators(subgraph)
    write_model(output, model)


def fit_int8_steps(steps: Sequence[Step], model: Path) -> tuple[Step, ...]:
    """Golden steps of a float32 cache as the file `model` takes and gives them."""
    scales = _scales(model)

    def fit(values: Arrays) -> Arrays:
        return {name: _round(value, scales[name]) if name in scales else value for name, value in values.items()}

    return tuple(replace(step, inputs=fit(step.inputs), outputs=fit(step.outputs)) for step in steps)


def _round(value: Any, scale: float) -> Any:
    return np.clip(np.rint(value / scale), -_LARGEST - 1, _LARGEST).astype(np.int8)


def _scales(path: Path) -> dict[str, float]:
    """The scale of each cache that a file takes or gives, by name."""
    model = flatbuffer_utils.read_model(str(path))
    found = {}
    for definition in model.signatureDefs:
        tensors = model.subgraphs[definition.subgraphIndex].tensors
        for entry in (*definition.inputs, *definition.outputs):
            tensor = tensors[entry.tensorIndex]
            if tensor.type == schema.TensorType.INT8:
                found[entry.name.decode()] = float(tensor.quantization.scale[0])
    return found


def _packed(model: Any, subgraph: Any, entry: Any, scale: float, *, taken: bool) -> Any:
    """Put an int8 tensor in the place of a port, and make the operator between the two."""
    index = entry.tensorIndex
    tensor = subgraph.tensors[index]
    packed = add_tensor(subgraph, tensor.name + b";int8", schema.TensorType.INT8, [int(size) for size in tensor.shape])
    subgraph.tensors[packed].quantization = _parameters(scale)
    entry.tensorIndex = packed
    ports = subgraph.inputs if taken else subgraph.outputs
    changed = [packed if each == index else int(each) for each in ports]
    if taken:
        subgraph.inputs = changed
        return make_operator(model, schema.BuiltinOperator.DEQUANTIZE, [packed], [index])
    subgraph.outputs = changed
    return make_operator(model, schema.BuiltinOperator.QUANTIZE, [index], [packed])


def _written_packed(model: Any, subgraph: Any, operators: list[Any], packing: Any) -> list[Any]:
    """The operators with new rows packed instead of the whole cache, where what is packed is a cache written to."""
    whole, packed = int(packing.inputs[0]), int(packing.outputs[0])
    makers = {int(index): operator for operator in operators for index in operator.outputs}
    update = makers.get(whole)
    if update is None or kind_of(model, update) != schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE:
        return operators
    unpacking = makers[int(update.inputs[0])]
    rows = subgraph.tensors[int(update.inputs[1])]
    shape = [int(size) for size in rows.shape]
    packed_rows = add_tensor(subgraph, subgraph.tensors[packed].name + b";rows", schema.TensorType.INT8, shape)
    subgraph.tensors[packed_rows].quantization = subgraph.tensors[packed].quantization
    inputs = [int(unpacking.inputs[0]), packed_rows, int(update.inputs[2])]
    instead = [
        make_operator(model, schema.BuiltinOperator.QUANTIZE, [int(update.inputs[1])], [packed_rows]),
        make_operator(model, schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE, inputs, [packed]),
        make_operator(model, schema.BuiltinOperator.DEQUANTIZE, [packed], [whole]),
    ]
    kept = [operator for operator in operators if operator is not packing]
    place = next(i for i, operator in enumerate(kept) if operator is update)
    return [*kept[:place], *instead, *kept[place + 1 :]]


def _parameters(scale: float) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = np.array([scale], np.float32), np.array([0], np.int64)
    return parameters


def _largest_values(path: Path, texts: Sequence[Prompt]) -> dict[str, float]:
    """The largest magnitude in each cache after all texts, by what follows `past_key_values` in its name."""
    interpreter = Interpreter(str(path))
    decode = interpreter.get_signature_runner(DECODE)
    encode = interpreter.get_signature_runner(ENCODE) if ENCODE in interpreter.get_signature_list() else None
    ports = {n: port for n, port in decode.get_input_details().items() if n.startswith(_PAST)}
    largest: dict[str, float] = {}
    for text in texts:
        values: Arrays = {name: np.zeros(port["shape"], port["dtype"]) for name, port in ports.items()}
        if encode is not None:
            _encode(encode, text, values, largest)
        for place, token in enumerate(text.ids[:-1]):
            ids = {"ids": np.array([[token]], np.int32), "position": np.array([place], np.int32)}
            outputs = decode(**values, **ids)
            values.update({f"{_PAST}{key}": value for key, value in _caches(outputs).items()})
        _widen(largest, {name.removeprefix(_PAST): values[name] for name in ports})
    return largest


def _encode(encode: Any, text: Prompt, values: Arrays, largest: dict[str, float]) -> None:
    """Run the encoder, and keep what every other call takes of it."""
    length = encode.get_input_details()["source_ids"]["shape"][1]
    source = np.zeros((2, 1, length), np.int32)
    source[0, 0, : len(text.source)], source[1, 0, : len(text.source)] = text.source, 1
    found = _caches(encode(source_ids=source[0], source_mask=source[1]))
    values.update({f"{_PAST}{key}": value for key, value in found.items()} | {"source_mask": source[1]})
    _widen(largest, found)


def _caches(outputs: Mapping[str, Any]) -> Arrays:
    return {key: value for name, value in outputs.items() if (key := _key(name, _PRESENT)) is not None}


def _widen(largest: dict[str, float], found: Mapping[str, Any]) -> None:
    for key, value in found.items():
        largest[key] = max(largest.get(key, 0.0), float(np.abs(value).max()))


def _key(name: str, prefix: str) -> str | None:
    return name.removeprefix(prefix) if name.startswith(prefix) else None
