"""Reads what LiteRT's plugins put behind a compiled TFLite file, without running it."""

from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import BundleError
from edgekit.export.compilers.targets import QUALCOMM_SOCS
from edgekit.extras import require

_DISPATCH = b"DISPATCH_OP"
#: where a QNN context holds its SoC's number: seen in contexts of QNN 2.40 for all SoCs that compile, at one place
_SOC_PLACE = slice(188, 192)


def read_contexts(path: Path) -> Iterator[bytes]:
    """The bytecode of each DISPATCH_OP of a compiled TFLite file."""
    require("ai_edge_litert", f"reading {path.name}")
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if model.operatorCodes[operator.opcodeIndex].customCode == _DISPATCH:
                told = flexbuffers.Loads(bytes(operator.customOptions))
                yield content[told["bytecode_offset"] : told["bytecode_offset"] + told["bytecode_size"]]


def check_soc(path: Path, soc: str) -> None:
    """Raise BundleError unless every QNN context of a file was compiled for this SoC.

    Nothing else tells: drivers and Qualcomm's simulator load a context of another SoC, and may run it.
    """
    names = {number: name for name, number in QUALCOMM_SOCS.items()}
    numbers = [int.from_bytes(context[_SOC_PLACE], "little") for context in read_contexts(path)]
    if not numbers:
        raise BundleError(f"{path} holds no QNN context: it was not compiled for {soc}")
    for number in numbers:
        if number != QUALCOMM_SOCS[soc]:
            found = names.get(number, f"an unknown SoC (number {number})")
            raise BundleError(f"{path} was compiled for {found}, not for {soc} as its manifest says: compile it again")
