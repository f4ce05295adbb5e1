"""`edgekit inspect`: what is in an exported file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.bundle import Manifest
    from edgekit.export.describe import FileDescription, PortDescription


def run_inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, or a .tflite, .onnx, .mlpackage, .pt2 or SavedModel.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show signatures, operators, sizes and where the bytes are.

    For a bundle also what its manifest says was measured. The file is read, never run.

    Examples:

        edgekit inspect bundles/language-id.tflite-none.edgekit

        edgekit inspect somebody-elses.onnx --json
    """
    from edgekit.bundle import MANIFEST, open_bundle
    from edgekit.cli.output import print_json
    from edgekit.export.describe import describe_file
    from edgekit.extras import skip_frameworks

    manifest = None
    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        manifest, path = bundle.manifest, bundle.model_path
    if path.suffix == ".mlpackage":
        skip_frameworks()
    description = describe_file(path)
    if as_json:
        shown = {"file": str(path), "description": description.model_dump(mode="json")}
        print_json(shown | ({"manifest": manifest.model_dump(mode="json")} if manifest else {}))
        return
    if manifest:
        _show_manifest(manifest)
    _show_description(path, description)


def _show_manifest(manifest: "Manifest") -> None:
    from edgekit.cli.output import QUALITY, compiled_rows, counted, parity_text, print_table, quality_text

    rows = [
        ["target", f"{manifest.target}, {manifest.scheme}, via {manifest.via}"],
        ["made from", f"{manifest.source.path} (sha256 {manifest.source.sha256[:12]}…)"],
        ["made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())],
        ["parity with the source", parity_text(manifest.parity)],
        [QUALITY if manifest.written else "accuracy", quality_text(manifest.accuracy, manifest.written)],
        ["golden texts", manifest.golden_texts],
    ]
    if manifest.compiled:
        made = manifest.compiled
        report = made.report
        taken = (
            f"{report.operators_taken} of {report.operators} operators, in {counted(report.partitions, 'partition')}"
        )
        rows += [
            ["compiled for", f"{made.device}, and nothing else"],
            ["compiled by", f"{made.compiler} {made.compiler_version}, from sha256 {made.source_sha256[:12]}…"],
            [f"on its {made.accelerator.upper()}", taken],
            ["run on", made.ran_on or manifest.parity.note],
        ]
    print_table(["bundle", manifest.name], rows)
    if left := compiled_rows(manifest):
        print_table(["device", "left to the CPU", "where", "why"], left)


def _show_description(path: Path, description: "FileDescription") -> None:
    from edgekit.cli.output import human_size, print_table

    rows = [["format", f"{description.format} {description.version}"], ["size", human_size(description.size_bytes)]]
    for signature in description.signatures:
        ports = f"{_ports(signature.inputs)} → {_ports(signature.outputs)}"
        rows.append([f"signature {signature.name}", ports])
    print_table(["file", path.name], rows)
    print_table(["operator", "count"], [[name, str(count)] for name, count in description.operators.items()])
    total = max(1, sum(count.bytes for count in description.weights.values()))
    print_table(
        ["weights", "tensors", "elements", "size", "share"],
        [
            [dtype, str(c.tensors), f"{c.elements:,}", human_size(c.bytes), f"{100 * c.bytes / total:.1f} %"]
            for dtype, c in description.weights.items()
        ],
    )
    print_table(
        ["largest tensors", "type", "shape", "size", "share of weights"],
        [
            [t.name, t.dtype, str(list(t.shape)), human_size(t.bytes), f"{100 * t.bytes / total:.1f} %"]
            for t in description.largest
        ],
    )


def _ports(ports: "tuple[PortDescription, ...]") -> str:
    return ", ".join(f"{p.name}: {p.dtype}{_shape(p)}" for p in ports)


def _shape(port: "PortDescription") -> str:
    return " or ".join(f"[{', '.join(str(d) for d in shape)}]" for shape in port.enumerated or (port.shape,))
