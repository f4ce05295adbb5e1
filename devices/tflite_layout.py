"""The order and names of a TFLite signature's tensors: benchmark_model takes inputs by them, and writes outputs so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import MissingExtraError, RefusedError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Inputs and outputs in the order of the subgraph: (name in the signature, name of the tensor)."""

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


def read_layouts(path: Path) -> dict[str, Layout]:
    """The layout of each signature of a file.

    Raises MissingExtraError without ai-edge-litert, RefusedError where the file has no named signature.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtraError("ai_edge_litert", "devices", "benchmark_model") from error
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    layouts = {
        entry.signatureKey.decode(): _layout(model.subgraphs[entry.subgraphIndex], entry) for entry in _all(model)
    }
    if not layouts:
        raise RefusedError(f"{path.name} has no named signature: export it again")
    return layouts


def _all(model: Any) -> list[Any]:
    return list(model.signatureDefs or ())


def _layout(graph: Any, entry: Any) -> Layout:
    def side(tensors: Any, ports: Any) -> tuple[tuple[str, str], ...]:
        names = {port.tensorIndex: port.name.decode() for port in ports}
        return tuple((names[index], graph.tensors[index].name.decode()) for index in tensors if index in names)

    return Layout(inputs=side(graph.inputs, entry.inputs), outputs=side(graph.outputs, entry.outputs))
