"""TFLite: ai-edge-quantizer's recipes, with what it leaves out and what its calibration gets wrong for attention."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import calibrator, quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import QuantGranularity
from ai_edge_quantizer.qtyping import TFLOperationName as Operator
from ai_edge_quantizer.utils import qsv_utils

from edgekit.export.jobs import Evidence
from edgekit.export.quantize.evidence import Floats
from edgekit.export.quantize.mixture import WEIGHTED, Mixture, wanted_weights
from edgekit.export.quantize.modules import Node
from edgekit.export.quantize.nodes import tflite_nodes
from edgekit.export.quantize.tflite_lookup import prepare_tables
from edgekit.export.quantize.tflite_norms import unfold_norms
from edgekit.export.quantize.tflite_outliers import balance_outliers
from edgekit.export.quantize.tflite_signatures import fit_signatures, share_parts, share_ranges
from edgekit.export.quantize.tflite_weights import float_weights, outputs_of_odd_rows, quantized_weights
from edgekit.export.tflite_writer import serialize
from edgekit.model.quantization import BLOCK, masked_low
from edgekit.model.weights import MASKED_SCORE
from edgekit.proof.golden import read_golden

_EVERY = ".*"
#: numbers in a row of a table beside which a scale of 4 bytes is 2 % or less
_WIDE = 200
_PRODUCT = "FULLY_CONNECTED"
#: operators of static schemes that stay in float32: the one division, of the mean, is all that tflite-runtime 2.14
#: lacks for int8 (for int16x8 it lacks several)
_FLOAT_OPERATORS = {"int8": (Operator.DIV,), "int16x8": ()}


def compress(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
    """Write the float32 file `source` to `output` as `asked`; `calibration` are steps of real text.

    Raises ExportError where a scheme did not take on its weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.tflite"
        balanced = _prepare(source, prepared, asked, calibration)
        nodes = tflite_nodes(prepared)
        floats = {name: values for name, values in float_weights(prepared).items() if not _is_mask(values)}
        recipe = _products_recipe() if balanced else _recipe(asked, prepared, nodes, floats)
        tool = quantizer.Quantizer(str(prepared), recipe)
        ranges = _calibrate(prepared, recipe, calibration) if calibration and tool.need_calibration else None
        result = tool.quantize(ranges, enable_progress_report=False)
    output.write_bytes(result.quantized_model)
    evidence = asked.check(floats, quantized_weights(output), wanted_weights(nodes, floats, asked))
    share_parts(output)
    return evidence


def _is_mask(values: Floats) -> bool:
    """Whether a constant holds masked scores, which `narrow_mask` lets saturate: no weight (DeBERTa has such)."""
    return bool(values.size and np.min(values) <= MASKED_SCORE / 2)


def _prepare(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> bool:
    """Write the float32 file in the form that quantizes best, the same numbers but for rounding; whether outliers in
    its channels were balanced, which int8 for a whole file takes.
    """
    model = flatbuffer_utils.read_model(str(source))
    changed = [prepare_tables(model, even_width="int4-weight" in asked.used), unfold_norms(model)]
    balanced = False
    if calibration and asked.schemes is None and asked.scheme == "int8":
        balanced = balance_outliers(model, fit_signatures(source, read_golden(calibration).steps))
    output.write_bytes(serialize(model) if balanced or any(changed) else source.read_bytes())
    return balanced


def _products_recipe() -> Any:
    """int8 for a model of outliers: matrix products and the token table; norms, sums, GELU and attention in float32.

    Balanced channels fit one scale, but norms of the sums of what they give do not: all-MiniLM-L6-v2 in int8 has a mean
    cosine of 0.67 with all operators quantized and 0.99 so. Its products of activations in int8, which XNNPACK
    (ai-edge-litert 2.3) does not take, make it 2.5 times slower.
    """
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(_EVERY, Operator.FULLY_CONNECTED, activation_num_bits=8, weight_num_bits=8)
    _quantize_table(manager, _EVERY)
    _keep_ends_float(manager)
    return manager.get_quantization_recipe()


def _recipe(asked: Mixture, model: Path, nodes: Sequence[Node], floats: Mapping[str, Floats]) -> Any:
    """ai-edge-quantizer's recipe: for each scheme, the operators that it is for, by what they give."""
    manager = recipe_manager.RecipeManager()
    if asked.schemes is None:
        _add_scheme(manager, asked.scheme, _EVERY, outputs_of_odd_rows(model, BLOCK))
        if asked.scheme == "int8-dynamic":
            _scale_rows(manager, nodes, floats)
        if asked.scheme in ("int8-dynamic", "int8-weight"):
            _scale_tied(manager, asked.scheme, nodes, floats)
        if asked.scheme in _FLOAT_OPERATORS:
            _keep_tail_float(manager, nodes, floats)
        return manager.get_quantization_recipe()
    for scheme, chosen in asked.select_nodes(nodes, floats).items():
        names = {node.name for node in chosen}
        odd = [name for name in outputs_of_odd_rows(model, BLOCK) if name in names]
        if chosen:
            _add_scheme(manager, scheme, _scope([";".join(node.outputs) for node in chosen]), odd)
    return manager.get_quantization_recipe()


def _scope(names: Sequence[str]) -> str:
    """A pattern for just these operators: ai-edge-quantizer's scope of one is its outputs' names, each with a ;."""
    return f"^(?:{'|'.join(re.escape(name) for name in names)});$"


def _add_scheme(manager: Any, scheme: str, scope: str, odd_rows: Sequence[str]) -> None:
    """One scheme for the operators of a scope; static ones leave the logits and the token table's output in float32.

    0.10 knows no static EMBEDDING_LOOKUP and would leave the table, the largest weight, in float32: it is quantized as
    in a dynamic recipe, where the runtime unpacks the rows that it reads.
    """
    if scheme == "int8-dynamic":
        manager.add_dynamic_config(scope, Operator.ALL_SUPPORTED, num_bits=8)
        _quantize_table(manager, scope)
    elif scheme == "int8-weight":
        manager.add_weight_only_config(scope, Operator.ALL_SUPPORTED, num_bits=8)
        one_scale = QuantGranularity.TENSORWISE
        manager.add_weight_only_config(scope, Operator.EMBEDDING_LOOKUP, num_bits=8, granularity=one_scale)
    elif scheme == "int4-weight":
        blocks = QuantGranularity.BLOCKWISE_32
        manager.add_dynamic_config(scope, Operator.ALL_SUPPORTED, num_bits=4, granularity=blocks)
        for name in odd_rows:  # a row is then one block: ai-edge-quantizer 0.10 fills none up
            for operator in (Operator.EMBEDDING_LOOKUP, Operator.FULLY_CONNECTED):
                manager.add_dynamic_config(_scope([name]), operator, num_bits=4)
    else:
        bits = {"int8": 8, "int16x8": 16}[scheme]
        manager.add_static_config(scope, Operator.ALL_SUPPORTED, activation_num_bits=bits, weight_num_bits=8)
        _quantize_table(manager, scope)
        _keep_ends_float(manager)
        for operator in _FLOAT_OPERATORS[scheme]:
            manager.add_quantization_config(scope, operator, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _keep_ends_float(manager: Any) -> None:
    """Float inputs (pixels) and outputs stay as they are: a program that feeds one scheme's file feeds all."""
    for end in (Operator.INPUT, Operator.OUTPUT):
        manager.add_quantization_config(_EVERY, end, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _quantize_table(manager: Any, scope: str) -> None:
    """The token table in int8 with one scale.

    tflite-runtime 2.14 answers wrongly with a scale for each row (int8: 81 % of labels changed, 0.9 % with one scale).
    In int8-dynamic that is not enough, its matrix products would need one scale too; there it saves the scales' room.
    """
    manager.add_dynamic_config(scope, Operator.EMBEDDING_LOOKUP, num_bits=8, granularity=QuantGranularity.TENSORWISE)


def _keep_tail_float(manager: Any, nodes: Sequence[Node], floats: Mapping[str, Floats]) -> None:
    """No static scheme for what follows the last product with weights: pooling and the norm of an embedding.

    They cost next to nothing and square and divide what they are given: all-MiniLM-L6-v2 in int8 answered with 0.65
    of cosine where they were quantized. edgekit's own encoder ends with such a product, and has no tail.
    """
    weighted = [i for i, node in enumerate(nodes) if node.kind in WEIGHTED and any(n in floats for n in node.constants)]
    for node in nodes[max(weighted, default=len(nodes)) + 1 :]:
        scope = _scope([";".join(node.outputs)])
        manager.add_quantization_config(scope, Operator.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _scale_rows(manager: Any, nodes: Sequence[Node], floats: Mapping[str, Floats]) -> None:
    """A scale for each row of tables with wide rows, where it takes next to no room.

    all-MiniLM-L6-v2 in int8-dynamic has a mean cosine of 0.996 with one scale and 0.997 with one for each row.
    """
    for node in nodes:
        tables = [floats[name] for name in node.constants if name in floats and floats[name].ndim == 2]
        if node.kind == "EMBEDDING_LOOKUP" and tables and tables[0].shape[1] >= _WIDE:
            manager.add_dynamic_config(_scope([";".join(node.outputs)]), Operator.EMBEDDING_LOOKUP, num_bits=8)


def _scale_tied(manager: Any, scheme: str, nodes: Sequence[Node], floats: Mapping[str, Floats]) -> None:
    """A scale for each row of tables that also score tokens, as products have it: with another, ai-edge-quantizer 0.10
    stores a copy of the table for each signature.
    """
    scored = {id(floats[name]) for node in nodes if node.kind == _PRODUCT for name in node.constants if name in floats}
    add = manager.add_dynamic_config if scheme == "int8-dynamic" else manager.add_weight_only_config
    for node in nodes:
        if node.kind == "EMBEDDING_LOOKUP" and any(id(floats.get(name)) in scored for name in node.constants):
            add(_scope([";".join(node.outputs)]), Operator.EMBEDDING_LOOKUP, num_bits=8)


def _calibrate(model: Path, recipe: Any, calibration: Path) -> dict[str, Any]:
    """The range of each activation over all calibration steps; of several signatures, each text by one that fits it.

    By smallest and largest value: with ai-edge-quantizer's default, a moving average, a model of 5 languages had a
    relative |Δ| of 0.42 where this gives 0.08 (softmax and additions in float32 in both).
    """
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    watcher = calibrator.Calibrator(str(model), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    inputs: dict[str, list[Any]] = {}
    for step in fit_signatures(model, read_golden(calibration).steps):
        inputs.setdefault(step.signature, []).append(step.inputs)
    watcher.calibrate(inputs, manager)
    return narrow_mask(share_ranges(model, watcher.get_model_qsvs()))


def narrow_mask(ranges: dict[str, Any]) -> dict[str, Any]:
    """Let masked scores saturate: their -1e4 would stretch the range so far that int8 tells no two real scores apart.

    Of a tensor that reaches half of MASKED_SCORE, the low end becomes twice the largest real score below zero, and some
    more. Models of 5 and 10 languages lost 2.6 and 3.0 points of accuracy in int8 without this, and none with it.
    """
    masked = [name for name, seen in ranges.items() if seen and np.min(seen["min"]) <= MASKED_SCORE / 2]
    if not masked:
        return ranges
    highest = max(float(np.max(ranges[name]["max"])) for name in masked)
    lowest = min(float(np.min(ranges[name]["min"])) - MASKED_SCORE for name in masked)
    low = masked_low(lowest, highest)
    narrowed = {name: {**ranges[name], "min": np.full_like(ranges[name]["min"], low)} for name in masked}
    return {**ranges, **narrowed}
