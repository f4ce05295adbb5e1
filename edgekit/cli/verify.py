"""`edgekit verify`: the proof of a bundle, repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, Manifest
    from edgekit.proof.prove import Proof


def run_verify(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles; without any, all in bundles/.", show_default=False)
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Compare one .mlpackage, whoever made it, with this checkpoint folder, .pt2, .onnx, .tflite or "
            ".mlpackage; its inputs have the same names."
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="With --against: a .npz of arrays by input name. Without, random inputs that are valid."),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="With --against: the scheme whose tolerance holds. Without, none or fp16, by the package."),
    ] = None,
    bisect: Annotated[
        bool,
        typer.Option("--bisect", help="Find the first tensor that departs from the source, and the module it is of."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Repeat the proof of a bundle: every byte, parity and accuracy.

    Compares each file with the manifest, byte for byte; then runs the target file on the golden data inside the bundle
    and compares its outputs with the source model's; one that writes texts writes them again. Exit code 1 when anything
    differs. Off a Mac, edgekit evaluates Core ML programs itself; with --against, also such as it did not make. A
    bundle that was compiled for a device runs on what stands in for it here, after a look at whether its contexts are
    that device's.

    Examples:

        edgekit verify

        edgekit verify bundles/language-id.tflite-none.edgekit --json

        edgekit verify some.mlpackage --against some.onnx

        edgekit verify --bisect bundles/language-id.coreml-fp16.edgekit
    """
    if against is not None or inputs is not None or scheme is not None:
        _compare_packages(bundles or [], against, inputs, scheme, as_json)
    if bisect:
        _bisect_bundles(bundles, as_json)
    from edgekit.bundle import find_bundles
    from edgekit.cli.output import QUALITY, parity_text, print_json, print_table, quality_text, stderr
    from edgekit.errors import EdgekitError

    rows, results, failed, quality = [], [], False, "accuracy"
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
        quality = QUALITY if proof.written else quality
        files = f"{len(bundle.manifest.files)} unchanged"
        rows.append([str(path), files, parity_text(proof.parity), quality_text(proof.accuracy, proof.written)])
        results.append(
            {
                "bundle": str(path),
                "ok": ok,
                "error": None,
                "parity": proof.parity.model_dump(mode="json"),
                "accuracy": proof.accuracy.model_dump(mode="json"),
                "written": proof.written.model_dump(mode="json") if proof.written else None,
            }
        )
    if as_json:
        print_json(results)
    else:
        print_table(["bundle", "files", "parity with the source", quality], rows)
    raise typer.Exit(code=1 if failed else 0)


def _compare_packages(
    paths: list[Path], against: Path | None, inputs: Path | None, scheme: str | None, as_json: bool
) -> NoReturn:
    from dataclasses import asdict

    from edgekit.cli.output import print_json, print_table
    from edgekit.errors import RefusedError
    from edgekit.export.schemes import TOLERANCES, check_scheme
    from edgekit.proof.against import compare_package

    if against is None:
        raise RefusedError("--inputs and --scheme go with --against, which names what to compare with")
    if len(paths) != 1:
        raise RefusedError("--against compares one package: name it, as in `edgekit verify some.mlpackage --against …`")
    named = check_scheme(scheme) if scheme else None
    found = compare_package(paths[0], against, inputs)
    if named is None and found.compressed:
        raise RefusedError(f"the weights of {paths[0]} are compressed: say --scheme, whose tolerance then holds")
    chosen = named or ("fp16" if found.float16 else "none")
    tolerance = TOLERANCES[chosen].relative
    ok = found.holds(tolerance)
    if as_json:
        result = asdict(found) | {"package": str(paths[0]), "against": str(against), "scheme": chosen, "ok": ok}
        print_json(result | {"relative_tolerance": tolerance})
    else:
        rows = [
            [
                each.name,
                f"{each.max_abs_difference:.1e}",
                f"{tolerance * max(1.0, each.max_abs_reference):.1e} ({chosen})",
                f"{each.cosine:.6f}",
            ]
            for each in found.outputs
        ]
        title = f"{paths[0]} {'equals' if ok else 'DIFFERS FROM'} {against} in {found.calls} calls"
        print_table(["output", "max |Δ|", "tolerance", "cosine"], rows, title=title)
    raise typer.Exit(code=0 if ok else 1)


def _bisect_bundles(paths: list[Path] | None, as_json: bool) -> NoReturn:
    from dataclasses import asdict

    from edgekit.bundle import find_bundles, open_bundle
    from edgekit.cli.output import print_json, print_table
    from edgekit.export.schemes import check_scheme, tolerance_of
    from edgekit.proof.bisect import bisect_bundle

    rows, results = [], []
    for path in paths or find_bundles(Path("bundles")):
        bundle = open_bundle(path)
        scheme, rewrites = check_scheme(bundle.manifest.scheme), bundle.manifest.rewrites
        found = bisect_bundle(bundle, tolerance_of([scheme], rewrites).relative)
        departs = found.departs
        apart = f"{departs.difference:.1e} relative, in step {found.step}" if departs else "–"
        where = [departs.module, departs.tensor or "none of its size"] if departs else ["nothing departs", "–"]
        rows.append([str(path), *where, apart])
        results.append({"bundle": str(path), "ok": departs is None} | asdict(found))
    if as_json:
        print_json(results)
    else:
        print_table(["bundle", "first module that departs", "nearest tensor of the file", "apart"], rows)
    raise typer.Exit(code=0 if all(result["ok"] for result in results) else 1)


def _prove_again(path: Path) -> "tuple[Bundle, Proof]":
    from edgekit.bundle import check_files, open_bundle
    from edgekit.export.recipes import schemes_of
    from edgekit.export.schemes import tolerance_of
    from edgekit.proof.prove import prove_file
    from edgekit.proof.tokens import check_tokens
    from edgekit.proof.writing import context_of

    bundle = open_bundle(path)
    check_files(bundle)
    check_tokens(bundle)
    manifest = bundle.manifest
    if manifest.compiled:
        from edgekit.export.compilers.pipeline import prove_again

        return bundle, prove_again(bundle)
    stateful = any(signature.stateful for signature in manifest.signatures)
    tolerance = tolerance_of(schemes_of(manifest), manifest.rewrites, half_states=stateful)
    proof = prove_file(
        bundle.model_path,
        manifest.runtime,
        bundle.golden_path,
        relative_tolerance=tolerance.relative,
        labels_changed_tolerance=tolerance.labels_changed,
        cosine_tolerance=tolerance.cosine,
        population=manifest.written.population if manifest.written else manifest.accuracy.population,
        accuracy_note=_accuracy_note(manifest),
        same_tokens=tolerance.same_tokens,
        bits_tolerance=tolerance.bits_per_byte,
        context=context_of(manifest.signatures),
    )
    return bundle, proof


def _accuracy_note(manifest: "Manifest") -> str:
    """Why accuracy, or the scores of texts, were not measured; empty where they were."""
    if manifest.written:
        return manifest.written.note
    return "" if manifest.accuracy.samples else manifest.accuracy.note
