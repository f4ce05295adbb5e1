"""LiteRT's compiler plugins: its own tool cuts a TFLite file into partitions, which a vendor's compiler compiles."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from edgekit.bundle import PartitionReport
from edgekit.errors import RefusedError
from edgekit.export.compilers.compiled import LeftNode, group_left, run_compiler
from edgekit.extras import check_installed

_PARTITIONED = re.compile(
    r"Partitioned subgraph<\d+>, selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions"
)
_REFUSED = re.compile(
    r"LiteRT Op #(?P<place>\d+) '(?P<name>\w+)' \(code=(?P<code>\d+)\) is not supported.*?\n"
    r".*?Outputs:\n\s+\[0\] name=\"(?P<output>[^\"]*)\"",
    re.DOTALL,
)
_INVALID = re.compile(
    r"QNN op validation failed: '[^']*' \(type=(?P<kind>\w+)\)\n(?P<ports>.*?)QNN error=(?P<code>\d+)", re.DOTALL
)
_DTYPE = re.compile(r"\[\d+\] name=\"[^\"]*\" dtype=QNN_DATATYPE_(\w+) dims=\[([\d,]*)\]")
_NO_BUILDER = "the compiler's plugin has no translation for it"


def litert_folder(needed_for: str) -> Path:
    """The folder of the installed ai-edge-litert; it is not imported. Raises MissingExtraError without it."""
    check_installed(("ai_edge_litert",), needed_for)
    found = importlib.util.find_spec("ai_edge_litert")
    return Path(str(found.origin)).parent if found else Path()


def run_plugin(
    vendor: str,
    manufacturer: str,
    soc: str,
    model: Path,
    output: Path,
    *,
    litert: Path,
    libraries: Sequence[Path],
    log: Path,
    timeout_s: float,
    options: Sequence[str] = (),
) -> str:
    """Compile `model` and return what was printed; the tool's own command `partition` says yes to what then fails.

    `litert` is the folder of the ai-edge-litert whose tool and plugin are used, `libraries` folders of the vendor's.
    Raises RefusedError where this system has no such tool, ExportError where compiling fails.
    """
    tool, plugin = litert / "tools" / "apply_plugin_main", litert / "vendors" / vendor / "compiler"
    if not tool.is_file() or not plugin.is_dir():
        raise RefusedError(f"ai-edge-litert has no {vendor} compiler for this system: compile on Linux, x86_64")
    argv = [
        str(tool),
        "--cmd=apply",
        f"--model={model.absolute()}",
        f"--o={output.absolute()}",
        f"--soc_manufacturer={manufacturer}",
        f"--soc_model={soc}",
        f"--libs={plugin}",
        "--err=--",
        *options,
    ]
    search = ":".join(map(str, [*libraries, litert]))
    run = run_compiler(argv, f"{manufacturer} {soc}", log=log, timeout_s=timeout_s, env={"LD_LIBRARY_PATH": search})
    return run.stdout + run.stderr


def read_report(text: str) -> PartitionReport:
    """The report in what the tool printed; an operator that is refused twice counts once."""
    counts = [tuple(map(int, found)) for found in _PARTITIONED.findall(text)]
    nodes: dict[str, LeftNode] = {}
    before = 0
    for found in _REFUSED.finditer(text):
        reason = _reason(text[before : found.start()])
        before = found.end()
        node = LeftNode(operator=_operator(int(found["code"]), found["name"]), output=found["output"], reason=reason)
        nodes.setdefault(found["place"], node)
    return PartitionReport(
        operators=sum(total for _, total, _ in counts),
        operators_taken=sum(selected for selected, _, _ in counts),
        partitions=sum(parts for _, _, parts in counts),
        left=group_left(nodes.values()),
    )


def _reason(text: str) -> str:
    """Why QNN's validator refused an operator: its types, as it was asked for them."""
    refusals = list(_INVALID.finditer(text))
    if not refusals:
        return _NO_BUILDER
    found = refusals[-1]
    inputs, _, outputs = found["ports"].partition("Outputs:")
    types = [", ".join(name for name, _ in _DTYPE.findall(side)) for side in (inputs, outputs)]
    ranks = [len(dims.split(",")) for _, dims in _DTYPE.findall(found["ports"])]
    rank = f", rank {max(ranks)}" if ranks and max(ranks) > 4 else ""
    return f"QNN's {found['kind']} does not take {types[0]} → {types[1]}{rank} (error {found['code']})"


def _operator(code: int, name: str) -> str:
    """The operator's name in TFLite's schema, whose numbers LiteRT uses."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    return names.get(code, name)
