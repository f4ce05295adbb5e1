"""Files that look one row of a table up and scale it: what LiteRT's GPU takes, half takes, or answers with garbage."""

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle import GOLDEN, LABELS, Accuracy, Bundle, Parity, open_bundle, seal_bundle, write_labels
from edgekit.program import Signature, SourceRef, TensorSpec
from edgekit.proof.golden import Golden, Step, write_golden

ROWS, COLUMNS, SCALE = 8, 4, 0.25
TABLE = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 13 - 6


def write_lookup(path: Path, dtype: str) -> Path:
    """Write a file whose table is int8, or float16 that is turned into float32 by an operator of its own.

    int8: EMBEDDING_LOOKUP, DEQUANTIZE. float16: DEQUANTIZE, EMBEDDING_LOOKUP, three times MUL by 1.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    kinds, codes = schema.TensorType, schema.BuiltinOperator
    graph = _Graph(schema)
    ids = graph.tensor("ids", kinds.INT32, (1,))
    if dtype == "int8":
        table = graph.tensor("table", kinds.INT8, TABLE.shape, TABLE.astype(np.int8), scale=SCALE)
        row = graph.tensor("row", kinds.INT8, (1, COLUMNS), scale=SCALE)
        logits = graph.tensor("logits", kinds.FLOAT32, (1, COLUMNS))
        graph.operator(codes.EMBEDDING_LOOKUP, [ids, table], row)
        graph.operator(codes.DEQUANTIZE, [row], logits)
    else:
        half = graph.tensor("half", kinds.FLOAT16, TABLE.shape, (TABLE * SCALE).astype(np.float16))
        table = graph.tensor("table", kinds.FLOAT32, TABLE.shape)
        one = graph.tensor("one", kinds.FLOAT32, (1, COLUMNS), np.ones((1, COLUMNS), np.float32))
        rows = [graph.tensor(f"row{n}", kinds.FLOAT32, (1, COLUMNS)) for n in range(3)]
        logits = graph.tensor("logits", kinds.FLOAT32, (1, COLUMNS))
        graph.operator(codes.DEQUANTIZE, [half], table)
        graph.operator(codes.EMBEDDING_LOOKUP, [ids, table], rows[0])
        for before, after in zip(rows, [*rows[1:], logits], strict=True):
            graph.operator(codes.MUL, [before, one], after, schema.MulOptionsT(), schema.BuiltinOptions.MulOptions)
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(graph.finish([ids], [logits])))
    return path


class _Graph:
    """One subgraph with one signature, in the schema's own objects."""

    def __init__(self, schema: Any) -> None:
        self._schema, self._names = schema, []
        self._model, self._graph = schema.ModelT(), schema.SubGraphT()
        self._model.version, self._model.buffers = 3, [schema.BufferT()]
        self._model.operatorCodes, self._model.subgraphs = [], [self._graph]
        self._graph.tensors, self._graph.operators = [], []

    def tensor(
        self, name: str, kind: int, shape: tuple[int, ...], values: Any = None, *, scale: float | None = None
    ) -> int:
        made = self._schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name.encode(), kind, list(shape), 0
        if values is not None:
            made.buffer = len(self._model.buffers)
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
        if scale is not None:
            made.quantization = self._schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        self._graph.tensors.append(made)
        self._names.append(name)
        return len(self._names) - 1

    def operator(self, code: int, inputs: list[int], output: int, options: Any = None, kind: int = 0) -> None:
        known = [each.builtinCode for each in self._model.operatorCodes]
        if code not in known:
            made = self._schema.OperatorCodeT()
            made.builtinCode = made.deprecatedBuiltinCode = code
            made.version = 2
            self._model.operatorCodes.append(made)
            known.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), inputs, [output]
        if options is not None:
            operator.builtinOptions, operator.builtinOptionsType = options, kind
        self._graph.operators.append(operator)

    def finish(self, inputs: list[int], outputs: list[int]) -> Any:
        entry = self._schema.SignatureDefT()
        entry.signatureKey, entry.subgraphIndex = b"serving_default", 0
        entry.inputs, entry.outputs = ([self._port(place) for place in places] for places in (inputs, outputs))
        self._graph.inputs, self._graph.outputs = inputs, outputs
        self._model.signatureDefs = [entry]
        return self._model

    def _port(self, place: int) -> Any:
        made = self._schema.TensorMapT()
        made.name, made.tensorIndex = self._names[place].encode(), place
        return made


def write_lookup_bundle(folder: Path, dtype: str) -> Bundle:
    """A bundle of such a file, with what a CPU answers as golden outputs."""
    path = folder / f"lookup.tflite-{dtype}.edgekit"
    path.mkdir(parents=True)
    write_lookup(path / "model.tflite", dtype)
    write_labels(path / LABELS, ("a", "b", "c", "d"))
    reference = (TABLE * SCALE).astype(np.float32)
    steps = tuple(
        Step(
            signature="serving_default",
            inputs={"ids": np.array([row], np.int32)},
            outputs={"logits": reference[row : row + 1]},
        )
        for row in range(ROWS)
    )
    write_golden(path / GOLDEN, Golden(steps=steps, labels=reference.argmax(1).astype(np.int32)))
    ids = TensorSpec(name="ids", dtype="int32", shape=(1,))
    logits = TensorSpec(name="logits", dtype="float32", shape=(1, COLUMNS))
    seal_bundle(
        path,
        name=f"lookup.tflite-{dtype}",
        task="classify",
        target="tflite",
        via="torch",
        scheme="none",
        scheme_details={},
        model="model.tflite",
        runtime="litert",
        signatures=(Signature(name="serving_default", method="forward", inputs=(ids,), outputs=(logits,)),),
        source=SourceRef(kind="checkpoint", path="tiny", framework="torch", task="classify", sha256="0" * 64),
        tools={},
        parity=Parity(
            verdict="within-tolerance",
            steps=ROWS,
            max_abs_difference=0.0,
            tolerance=1e-5 * float(reference.max()),
            max_abs_reference=float(reference.max()),
            labels_changed=0,
        ),
        accuracy=Accuracy(accuracy=1.0, samples=ROWS, population=100),
        golden_texts="made by hand",
    )
    return open_bundle(path)
