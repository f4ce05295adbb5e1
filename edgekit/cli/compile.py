"""`edgekit compile`: bundle → bundle for one device's NPU."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.errors import EdgekitError

_FOR = (
    "What to compile for: qnn:SOC with a SOC of SA8255, SA8295, SM8350, SM8450, SM8475, SM8550, SM8650, SM8750, "
    "SM8845, SM8850; openvino; or ethos-u55-32 … ethos-u85-2048, as ethos-u-vela names them. Several make several "
    "bundles."
)


def run_compile(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of TFLite files.")],
    targets: Annotated[list[str], typer.Option("--for", help=_FOR)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Parent folder; without it, the bundle's own.")
    ] = None,
    eval_samples: Annotated[
        int, typer.Option(min=1, help="Held-out examples to run: simulators take a tenth of a second for each.")
    ] = 50,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit of one compilation, in seconds.")] = 1800,
    force: Annotated[bool, typer.Option("--force", help="Replace bundles that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a bundle for one device's NPU: a bundle of its own, with the compiler's partition report.

    The compiled file runs on that device only. It is proven on what stands in for it here: Qualcomm's simulator,
    OpenVINO on the CPU; for Ethos-U nothing does, and its manifest says so. What the compiler left to the CPU is listed
    with its reasons. QNN and OpenVINO live in environments of their own (edgekit devices setup local --runtime
    onnxruntime-qnn, or litert-openvino), Vela comes with the extra ethos-u.

    Examples:

        edgekit compile bundles/language-id.tflite-none.edgekit --for qnn:SM8650

        edgekit compile bundles/language-id.tflite-int8.edgekit --for qnn:SM8550,qnn:SM8650,ethos-u85-256

        edgekit compile bundles/language-id.tflite-fp16.edgekit --for openvino -o compiled
    """
    from edgekit.bundle import open_bundle
    from edgekit.cli.output import print_json, split_list
    from edgekit.errors import EdgekitError
    from edgekit.export.compilers.pipeline import check_compilable, compile_bundle
    from edgekit.export.compilers.targets import parse_target

    wanted = [parse_target(text) for text in split_list(targets)]
    work = [(open_bundle(path), target) for path in bundles for target in wanted]
    for bundle, target in work:
        check_compilable(bundle, target)
    made: list[tuple[str, Bundle | EdgekitError]] = []
    for bundle, target in work:
        name = f"{bundle.manifest.name} for {target.name}"
        try:
            outcome = compile_bundle(
                bundle,
                target,
                parent=output or bundle.path.absolute().parent,
                force=force,
                timeout_s=timeout,
                max_steps=eval_samples,
                on_stage=lambda stage, name=name: _say(f"{name}: {stage}"),  # type: ignore[misc]
            )
        except EdgekitError as error:
            made.append((name, error))
        else:
            made.append((name, outcome.bundle))
    if as_json:
        print_json([_as_dict(name, result) for name, result in made])
    else:
        _show([result for _, result in made if not isinstance(result, EdgekitError)])
    for name, result in made:
        _complain(name, result)
    raise typer.Exit(code=0 if all(_is_good(result) for _, result in made) else 1)


def _say(text: str) -> None:
    from edgekit.cli.output import stderr

    stderr.print(text, markup=False)


def _is_good(result: "Bundle | EdgekitError") -> bool:
    from edgekit.errors import EdgekitError

    return not isinstance(result, EdgekitError) and result.manifest.parity.verdict != "failed"


def _as_dict(name: str, result: "Bundle | EdgekitError") -> dict[str, Any]:
    from edgekit.errors import EdgekitError

    if isinstance(result, EdgekitError):
        return {"name": name, "ok": False, "bundle": None, "error": str(result), "manifest": None}
    manifest = result.manifest.model_dump(mode="json")
    return {"name": name, "ok": _is_good(result), "bundle": str(result.path), "error": None, "manifest": manifest}


def _show(made: "list[Bundle]") -> None:
    from edgekit.cli.output import compiled_rows, counted, human_size, parity_text, print_table

    rows = []
    for bundle in made:
        compiled = bundle.manifest.compiled
        if compiled:
            report = compiled.report
            parts = counted(report.partitions, "partition")
            taken = f"{report.operators_taken} of {report.operators} operators, {parts}"
            size, parity = human_size(bundle.model_size_bytes), parity_text(bundle.manifest.parity)
            rows.append([str(bundle.path), compiled.device, taken, size, parity])
    if rows:
        print_table(["bundle", "device", "on its NPU", "size", "parity with the source"], rows)
    left = [row for bundle in made for row in compiled_rows(bundle.manifest)]
    if left:
        print_table(["device", "left to the CPU", "where", "why"], left)


def _complain(name: str, result: "Bundle | EdgekitError") -> None:
    from edgekit.errors import EdgekitError

    if isinstance(result, EdgekitError):
        _say(f"edgekit: error: {name}: {' '.join(str(result).split())}")
    elif not _is_good(result):
        parity = result.manifest.parity
        apart = f"|Δ| {parity.max_abs_difference} is over {parity.tolerance}"
        _say(f"edgekit: error: {result.path} is written as failed: {apart}; {parity.note}")
    else:
        _say(f"{name}: {result.manifest.parity.note}")
