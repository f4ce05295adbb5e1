"""`edgekit verify`: the proof of a bundle, repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.proof.prove import Proof


def run_verify(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles; without any, all in bundles/.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Repeat the proof of a bundle: every byte, parity and accuracy.

    Compares each file with the manifest, byte for byte; then runs the target file on the golden data inside the bundle
    and compares its outputs with the source model's. Exit code 1 when anything differs.

    Examples:

        edgekit verify

        edgekit verify bundles/language-id.tflite-none.edgekit --json
    """
    from edgekit.bundle import find_bundles
    from edgekit.cli.output import accuracy_text, parity_text, print_json, print_table, stderr
    from edgekit.errors import EdgekitError

    rows, results, failed = [], [], False
    for path in bundles or find_bundles(Path("bundles")):
        try:
            bundle, proof = _prove_again(path)
        except EdgekitError as error:
            failed = True
            stderr.print(f"edgekit: error: {' '.join(str(error).split())}", markup=False)
            rows.append([str(path), "FAILED", "–", "–"])
            results.append({"bundle": str(path), "ok": False, "error": str(error)})
            continue
        ok = proof.parity.verdict != "failed"
        failed = failed or not ok
        files = f"{len(bundle.manifest.files)} unchanged"
        rows.append([str(path), files, parity_text(proof.parity), accuracy_text(proof.accuracy)])
        results.append(
            {
                "bundle": str(path),
                "ok": ok,
                "error": None,
                "parity": proof.parity.model_dump(mode="json"),
                "accuracy": proof.accuracy.model_dump(mode="json"),
            }
        )
    if as_json:
        print_json(results)
    else:
        print_table(["bundle", "files", "parity with the source", "accuracy"], rows)
    raise typer.Exit(code=1 if failed else 0)


def _prove_again(path: Path) -> "tuple[Bundle, Proof]":
    from edgekit.bundle import check_files, open_bundle
    from edgekit.export.recipes import schemes_of
    from edgekit.export.schemes import tolerance_of
    from edgekit.proof.prove import prove_file

    bundle = open_bundle(path)
    check_files(bundle)
    manifest = bundle.manifest
    tolerance = tolerance_of(schemes_of(manifest))
    proof = prove_file(
        bundle.model_path,
        manifest.runtime,
        bundle.golden_path,
        relative_tolerance=tolerance.relative,
        labels_changed_tolerance=tolerance.labels_changed,
        population=manifest.accuracy.population,
        accuracy_note="" if manifest.accuracy.samples else manifest.accuracy.note,
    )
    return bundle, proof
