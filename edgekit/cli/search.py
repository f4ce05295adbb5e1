"""`edgekit search`: the smallest or fastest mixed recipe within a budget of accuracy."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.sweeps import (
    CalibrationDataOption,
    CalibrationSamplesOption,
    CheckpointArgument,
    EngineOption,
    EvalSamplesOption,
    RayAddressOption,
    TargetOption,
)

if TYPE_CHECKING:
    from edgekit.export.quantize.scores import Score
    from edgekit.export.quantize.search import SearchResult
    from edgekit.export.quantize.sweep import Sweep

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1_000_000}


def run_search(
    checkpoint: CheckpointArgument = None,
    target: TargetOption = "tflite",
    max_drop: Annotated[
        float, typer.Option(help="Percentage points of accuracy on the validation texts that may be lost.")
    ] = 0.3,
    max_size: Annotated[
        str | None, typer.Option(help="Largest file: bytes, or 600kB, 1.2MB.", show_default=False)
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Longest median of one text here, in ms.", show_default=False)
    ] = None,
    fastest: Annotated[bool, typer.Option("--fastest", help="Look for the fastest recipe, not the smallest.")] = False,
    schemes: Annotated[
        list[str] | None, typer.Option(help="Schemes to mix; default: each target's own for weights.")
    ] = None,
    max_evaluations: Annotated[int, typer.Option(min=1, help="How many files to make and run at most.")] = 300,
    eval_samples: EvalSamplesOption = "all",
    calibration_data: CalibrationDataOption = None,
    num_calibration_samples: CalibrationSamplesOption = 200,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Recipe file to write; default recipes/NAME.TARGET/mixed.toml.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the smallest (or fastest) recipe within a budget of accuracy, and write it as a file for export.

    Every candidate is really made, run and scored on texts of the validation part, so that the test part stays unseen.
    Finished work is kept: the same command goes on where it was interrupted. Exit code 1 where nothing keeps all
    limits.

    Examples:

        edgekit search --target tflite --max-drop 0.3

        edgekit search checkpoints/mine --target onnx --max-drop 0.5 --max-size 600kB

        edgekit export checkpoints/mine --target tflite --quantize recipes/mine.tflite/mixed.toml
    """
    from edgekit.checkpoint import check_classifier
    from edgekit.cli.output import print_json, split_list
    from edgekit.cli.sweeps import SweepProgress, choose_engine, open_checkpoint, open_sweep
    from edgekit.export.quantize.search import DEFAULT_SCHEMES, Limits, Search
    from edgekit.export.quantize.sensitivity import check_by_module
    from edgekit.export.schemes import check_scheme
    from edgekit.export.targets import find_targets

    limits = Limits(max_drop=max_drop, max_size_bytes=_parse_size(max_size), max_latency_ms=max_latency)
    mixed = [check_scheme(name) for name in split_list(schemes or [",".join(DEFAULT_SCHEMES.get(target, ()))])]
    run_batches = choose_engine(engine, ray_address)
    find_targets([target])
    for scheme in mixed:
        check_by_module(scheme, target)
    if output:
        _check_free(output, force=force)
    loaded = open_checkpoint(checkpoint)
    check_classifier(loaded, "searching for a recipe")
    sweep = open_sweep(
        loaded,
        target,
        schemes=mixed,
        eval_samples=eval_samples,
        calibration_data=calibration_data,
        num_calibration_samples=num_calibration_samples,
    )
    path = output or Path("recipes") / f"{sweep.checkpoint.name}.{target}" / "mixed.toml"
    _check_free(path, force=force)
    _warn_of_few(sweep, max_drop)
    with SweepProgress() as progress:
        search = Search(
            sweep,
            mixed,
            limits,
            run_batches,
            fastest=fastest,
            max_evaluations=max_evaluations,
            on_round=progress.show,
        )
        found = search.run()
    if as_json:
        print_json(_as_dict(found, path if found.best else None))
    else:
        _show(found, limits)
    _finish(found, sweep, limits, path, named=f"{checkpoint} " if checkpoint else "")


def _parse_size(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise typer.BadParameter(f"{text!r} is no size: give bytes, or 600kB, 1.2MB", param_hint="--max-size")
    return int(float(found[1]) * _UNITS[found[2]])


def _warn_of_few(sweep: "Sweep", max_drop: float) -> None:
    from edgekit.cli.output import stderr

    points = 100 / sweep.num_texts
    if points > max_drop:
        one = f"one of {sweep.num_texts} validation texts is {points:.2f} points"
        stderr.print(f"edgekit: warning: {one}: within --max-drop {max_drop:g} none may be lost", markup=False)


def _check_free(path: Path, *, force: bool) -> None:
    from edgekit.errors import OutputError

    if path.suffix != ".toml":
        raise typer.BadParameter(f"{path} must end in .toml", param_hint="--output")
    if path.exists() and not force:
        raise OutputError(f"{path} exists and was kept: use --force to replace it, or another -o")


def _finish(found: "SearchResult", sweep: "Sweep", limits: Any, path: Path, *, named: str) -> None:
    """Write the recipe and say what it is worth; exit with 1 where there is none."""
    from edgekit.cli.output import human_size, points_text, stderr
    from edgekit.export.recipes import write_recipe
    from edgekit.outputs import explained

    for skipped in found.skipped:
        stderr.print(f"edgekit: warning: left out: {skipped}", markup=False)
    if found.best is None:
        stderr.print(
            "edgekit: error: no recipe keeps all limits; give a larger --max-drop, --max-size or --max-latency"
        )
        raise typer.Exit(code=1)
    best, uniform = found.best, found.best_uniform
    facts = {
        "texts": sweep.texts,
        "size_bytes": best.size_bytes,
        "accuracy": best.accuracy,
        "drop_points": best.drop,
        "evaluated": found.evaluated,
    }
    recipe = best.recipe.model_copy(update={"name": path.stem, "target": sweep.target, "found": facts})
    comment = (
        f"Found by: edgekit search {sweep.checkpoint.name} --target {sweep.target} --max-drop {limits.max_drop}\n"
        f"{human_size(best.size_bytes)}, {points_text(-(best.drop or 0.0))} points on {sweep.texts}."
    )
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, path, comment)
    if found.beats_uniform and uniform:
        beaten = f"{uniform.recipe.scheme} ({human_size(uniform.size_bytes)})"
        stderr.print(f"It beats the best uniform scheme of this budget, {beaten}.", markup=False)
    else:
        stderr.print(f"No mixed recipe beats the uniform scheme {best.recipe.scheme} within this budget.", markup=False)
    command = f"edgekit export {named}--target {sweep.target} --quantize {path} --eval-samples all"
    stderr.print(f"Next, on the test part: {command}", markup=False)


def _show(found: "SearchResult", limits: Any) -> None:
    from edgekit.cli.output import print_table

    rows = [_row(score.recipe.scheme, score, limits) for score in found.uniforms]
    if found.best and found.best.recipe.rules:
        rows.append(_row("mixed: " + _in_words(found.best), found.best, limits))
    title = f"{found.evaluated} files made and run"
    print_table(
        ["recipe", "size", "accuracy", "change", "labels changed", "latency", "within limits"], rows, title=title
    )


def _row(name: str, score: "Score", limits: Any) -> list[str]:
    from edgekit.cli.output import human_size, points_text

    if score.error:
        return [name, "–", "–", "–", "–", "–", f"failed: {score.error}"[:60]]
    latency = f"{score.latency_ms:.2f} ms" if score.latency_ms else "not asked"
    accuracy = "–" if score.accuracy is None else f"{100 * score.accuracy:.2f} %"
    change = "–" if score.drop is None else points_text(-score.drop)
    changed = f"{score.labels_changed} of {score.texts}"
    return [
        name,
        human_size(score.size_bytes),
        accuracy,
        change,
        changed,
        latency,
        "yes" if limits.allow(score) else "no",
    ]


def _in_words(score: "Score") -> str:
    rules = ", ".join(f"{rule.modules} {rule.scheme}" for rule in score.recipe.rules)
    return f"{score.recipe.scheme}, but {rules}"


def _as_dict(found: "SearchResult", path: Path | None) -> dict[str, Any]:
    return {
        "recipe": str(path) if path else None,
        "best": found.best.model_dump(mode="json") if found.best else None,
        "best_uniform": found.best_uniform.model_dump(mode="json") if found.best_uniform else None,
        "beats_uniform": found.beats_uniform,
        "uniforms": [score.model_dump(mode="json") for score in found.uniforms],
        "evaluated": found.evaluated,
        "skipped": list(found.skipped),
    }
