"""`edgekit export`: checkpoint → proven bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli.cache import DEFAULT_SIZE, CacheDirOption, CacheSizeOption, NoCacheOption, open_cache

if TYPE_CHECKING:
    from edgekit.cache import Cache
    from edgekit.checkpoint import Checkpoint
    from edgekit.export.coreml_options import CoremlOptions
    from edgekit.export.foreign import Foreign
    from edgekit.export.pipeline import Outcome
    from edgekit.export.plan import PlannedExport
    from edgekit.export.quantize.calibration import Calibration


def run_export(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder of a checkpoint; hf:FOLDER, hf:OWNER/NAME or hf:INSTALLED-PACKAGE (Hugging Face); "
            "package.module:function, which makes a torch.nn.Module or Keras model; a .keras file or SavedModel "
            "folder. Without it the embedded model.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a Hugging Face model: text-classification, token-classification, feature-extraction, fill-mask, "
            "question-answering or image-classification.",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        str,
        typer.Option(help="Of feature-extraction: mean, cls or max in the graph; auto: as sentence-transformers says."),
    ] = "none",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Of feature-extraction: scale the embedding to length 1, in the graph.")
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Of a function: name:dtype[shape], as in ids:int32[1,128].", show_default=False),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run Python and pickles that come with the model: read them first."),
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="tflite, onnx, coreml, savedmodel, pt2, or all (the first three).")
    ] = None,
    quantize: Annotated[
        list[str] | None,
        typer.Option(
            help="Schemes: none, fp16, int8-dynamic, int8, int8-weight, int4-weight, int16x8, palette4, palette6, "
            "palette8 (edgekit schemes explains them); or a recipe file (*.toml) that gives each module its own."
        ),
    ] = None,
    via: Annotated[
        list[str] | None, typer.Option(help="Route: torch, tensorflow, or both; default: each target's better one.")
    ] = None,
    rewrite: Annotated[
        list[str] | None,
        typer.Option(
            help="Do to the model before: float-mask, gelu-tanh, fused-heads, split-heads, fp16-mask, fp16-norm "
            "(edgekit schemes --rewrites explains them).",
            show_default=False,
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(help="Texts to calibrate int8 and int16x8 with, a file as for train; else the training data's."),
    ] = None,
    num_calibration_samples: Annotated[int, typer.Option(min=1, help="How many texts to calibrate with.")] = 200,
    minimum_deployment_target: Annotated[
        str | None,
        typer.Option(
            help="Core ML: the oldest iOS that must read the package: iOS15, iOS16, iOS17 or iOS18; default: iOS17, or "
            "what other options need.",
            show_default=False,
        ),
    ] = None,
    sequence_length: Annotated[
        list[str] | None,
        typer.Option(
            help="Lengths in tokens that a file takes, the model's own among them: one signature each over one copy of "
            "the weights, ONNX and SavedModel any length. Default: chosen from the lengths of the data's own texts, or "
            "of the texts that a Hugging Face model of one answer by text is proven on; Core ML: one, as several need "
            "iOS 18. Of a model to translate: of source texts, beside the longest, in TFLite; none by default.",
            show_default=False,
        ),
    ] = None,
    prefill_length: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a model to generate: how many tokens of a prompt a file reads at once, one signature each over "
            "one copy of the weights. Default: 8, 32 and 128, as far as the model reads.",
            show_default=False,
        ),
    ] = None,
    kv_cache: Annotated[
        Literal["dynamic", "static"],
        typer.Option(
            help="Of a model that writes, in ONNX: a cache that grows with the text, as Optimum and onnxruntime-genai "
            "have it, or one of fixed size."
        ),
    ] = "dynamic",
    cache_dtype: Annotated[
        Literal["float32", "int8"],
        typer.Option(
            help="Of a model that writes, in TFLite: how the cache is kept between calls; int8 takes a quarter of the "
            "memory, with scales from texts of the training data."
        ),
    ] = "float32",
    multifunction: Annotated[
        bool, typer.Option("--multifunction", help="Core ML: a function for each length, over one copy of the weights.")
    ] = False,
    author: Annotated[str, typer.Option(help="Core ML: the author that Xcode shows.", show_default=False)] = "",
    license: Annotated[str, typer.Option(help="Core ML: the license that Xcode shows.", show_default=False)] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Parent folder of the bundles.")] = Path("bundles"),
    eval_samples: Annotated[
        str | None,
        typer.Option(
            help="Held-out examples to run through every file: a number, or all. Default: 500; 200 texts of a model "
            "that writes.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit of one conversion, in seconds.")] = 1800,
    force: Annotated[bool, typer.Option("--force", help="Replace bundles that exist.")] = False,
    cache_dir: CacheDirOption = None,
    cache_size: CacheSizeOption = DEFAULT_SIZE,
    no_cache: NoCacheOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a checkpoint to TFLite, ONNX and Core ML, and prove each file.

    Every file is loaded into its runtime, run on held-out text and compared with the source model before it is put in
    place. List options may be repeated or comma-separated. What an earlier export left in the cache is not made again:
    not the file, while model, options, edgekit and all installed packages are the same; and not its proof, while the
    bytes are, too. Bundles say so. Code of a function, or run with --trust-remote-code, is never taken from the cache.

    Examples:

        edgekit export --target tflite

        edgekit export checkpoints/mine --target all --quantize none,fp16

        edgekit export checkpoints/mine --target tflite --quantize int8-dynamic,int8 --calibration-data texts.csv

        edgekit export checkpoints/mine --target tflite,onnx --sequence-length 16,32,64,128

        edgekit export checkpoints/mine --target coreml --sequence-length 16,32,128 --multifunction

        edgekit export checkpoints/mine --target onnx --via torch,tensorflow --eval-samples all

        edgekit export checkpoints/mine --target tflite --quantize recipes/mine.tflite-mixed.toml

        edgekit export checkpoints/mine --target tflite --quantize fp16 --rewrite gelu-tanh,fused-heads

        edgekit export checkpoints/translator --target tflite --quantize none,int8-dynamic

        edgekit export checkpoints/writer --target tflite --prefill-length 16,64 --cache-dtype int8

        edgekit export checkpoints/writer --target onnx,coreml --quantize none,int4-weight

        edgekit export hf:all-MiniLM-L6-v2 --task feature-extraction --pooling mean --normalize --target all

        edgekit export mypackage.models:make_encoder --input ids:int32[1,128] --target tflite
    """
    from functools import partial

    from edgekit.checkpoint import embedded_checkpoint_path, load_checkpoint
    from edgekit.cli.measuring import parse_lengths
    from edgekit.cli.output import print_json, split_list, stderr
    from edgekit.cli.sweeps import parse_samples
    from edgekit.export.foreign import TextChoice, is_foreign, open_foreign, refuse_foreign_options
    from edgekit.export.plan import plan_exports
    from edgekit.proof.held_out_texts import TEXTS

    asked = parse_lengths(sequence_length or [], "--sequence-length")
    prefill = parse_lengths(prefill_length or [], "--prefill-length")
    cache = open_cache(cache_dir, cache_size, off=no_cache)
    foreign, samples = None, parse_samples(eval_samples or "500")
    if source is not None and is_foreign(source):
        texts = TextChoice(samples, calibration_data, num_calibration_samples, cache)
        options = {"pooling": pooling, "normalize": normalize, "trust_remote_code": trust_remote_code}
        foreign = open_foreign(source, task=task, inputs=inputs or [], lengths=asked, texts=texts, **options)
        asked = foreign.lengths
    else:
        refuse_foreign_options(task=task, pooling=pooling, normalize=normalize, inputs=inputs, trust=trust_remote_code)
        if source is None:
            text = "No checkpoint given: exporting the embedded model, language-id (40 languages of interface text)."
            stderr.print(text)
        loaded = load_checkpoint(Path(source) if source is not None else embedded_checkpoint_path())
        if eval_samples is None and loaded.config.task != "classify":
            samples = TEXTS
    _check_prefill(prefill, None if foreign else loaded)
    if not foreign and loaded.config.task == "translate":
        asked, prefill = (), _source_lengths(asked, loaded, split_list(target or ["tflite"]))
    by_default = foreign.by_default if foreign else not asked
    plan = partial(
        plan_exports,
        foreign.subject.name if foreign else loaded.name,
        foreign.model if foreign else loaded.config,
        targets=split_list(target or ["tflite"]),
        schemes=split_list(quantize or ["none"]),
        via=split_list(via or []),
        output=output,
        force=force,
        rewrites=split_list(rewrite or []),
        coreml=_coreml_options(
            minimum_deployment_target,
            () if not foreign and asked == (loaded.config.max_length,) else asked,
            multifunction=multifunction,
            author=author,
            license=license,
        ),
        by_default=by_default,
        kv_cache=kv_cache,
        cache_dtype=cache_dtype,
    )
    plans = plan(lengths=asked)
    writes = not foreign and loaded.config.task != "classify"
    if by_default and not writes and not dry_run and not any(each.problem for each in plans):
        plans = plan(lengths=_choose_lengths(foreign or loaded, plans, samples, cache))
    if dry_run:
        _show_plans(plans, as_json=as_json)
        raise typer.Exit(code=1 if any(plan.problem for plan in plans) else 0)

    from edgekit.export.pipeline import export_checkpoint, export_subject

    calibration = None if foreign else _calibrate(loaded, plans, calibration_data, num_calibration_samples, cache)
    with ExportProgress([plan.name for plan in plans]) as progress:
        if foreign:
            outcomes = export_subject(
                foreign.subject, plans, force=force, timeout_s=timeout, cache=cache, on_stage=progress.show
            )
        else:
            outcomes = export_checkpoint(
                loaded,
                plans,
                eval_samples=samples,
                force=force,
                timeout_s=timeout,
                calibration=calibration,
                cache=cache,
                prefill_lengths=prefill,
                on_stage=progress.show,
            )
    if as_json:
        print_json([_as_dict(outcome) for outcome in outcomes])
    else:
        _show_outcomes(outcomes)
    _complain(outcomes)
    raise typer.Exit(code=0 if all(outcome.ok for outcome in outcomes) else 1)


def _check_prefill(lengths: tuple[int, ...], checkpoint: "Checkpoint | None") -> None:
    """Raise RefusedError for prefill lengths that the source has no use for."""
    from edgekit.errors import RefusedError
    from edgekit.export.writer_plan import refuse_prefill

    if lengths and checkpoint is None:
        raise RefusedError("--prefill-length is of edgekit's own models to generate: leave it out")
    if checkpoint is not None and (refused := refuse_prefill(lengths, checkpoint.config)):
        raise RefusedError(refused)


def _source_lengths(lengths: tuple[int, ...], checkpoint: "Checkpoint", targets: list[str]) -> tuple[int, ...]:
    """The lengths of source texts that files read beside the longest, ascending; raises RefusedError."""
    from edgekit.errors import RefusedError
    from edgekit.export.writer_plan import refuse_source_lengths

    if refused := refuse_source_lengths(lengths, checkpoint.config, targets):
        raise RefusedError(refused)
    return tuple(sorted(set(lengths) - {checkpoint.config.max_length}))


def _choose_lengths(
    source: "Checkpoint | Foreign", plans: "list[PlannedExport]", eval_samples: int | None, cache: "Cache | None"
) -> tuple[int, ...]:
    """The lengths for the data's own texts, where a target has a signature for each; what each target takes is said."""
    from edgekit.cli.output import stderr
    from edgekit.export.foreign import Foreign, hub_lengths
    from edgekit.export.lengths import default_lengths

    longest = source.model.max_length if isinstance(source, Foreign) else source.config.max_length

    def named(kind: str) -> str:
        return ", ".join(dict.fromkeys(plan.target.name for plan in plans if plan.target.lengths == kind))

    free, several = named("dynamic"), named("signatures")
    if free:
        stderr.print(f"Sequence lengths of {free}: any, up to {longest}.", markup=False)
    if not several:
        return ()
    choice = hub_lengths(source) if isinstance(source, Foreign) else default_lengths(source, eval_samples, cache=cache)
    names = ", ".join(map(str, choice.lengths))
    stderr.print(f"Sequence lengths of {several}: {names} ({choice.reason}).", markup=False)
    return choice.lengths


def _coreml_options(target: str | None, lengths: tuple[int, ...], **others: Any) -> "CoremlOptions":
    """Options of Core ML packages as typed; raises UnknownNameError for an iOS that is none of ours."""
    from edgekit.errors import UnknownNameError
    from edgekit.export.coreml_options import DEPLOYMENT_TARGETS, CoremlOptions

    if target and target not in DEPLOYMENT_TARGETS:
        raise UnknownNameError("deployment target", target, DEPLOYMENT_TARGETS)
    asked = {"minimum_deployment_target": target, "sequence_lengths": lengths}
    return CoremlOptions.model_validate(asked | others)


def _calibrate(
    checkpoint: "Checkpoint", plans: "list[PlannedExport]", data: Path | None, samples: int, cache: "Cache | None"
) -> "Calibration | None":
    """The texts that schemes with fixed ranges are calibrated with; None where no plan has such a scheme."""
    from edgekit.cli.output import stderr
    from edgekit.errors import RefusedError
    from edgekit.export.quantize.calibration import choose_calibration
    from edgekit.export.schemes import CALIBRATED

    if not any(plan.calibrated and plan.problem is None for plan in plans):
        if data:
            wanted = " or ".join(sorted(CALIBRATED))
            raise RefusedError(f"--calibration-data has no use here: only {wanted} are calibrated")
        return None
    calibration = choose_calibration(checkpoint, data=data, samples=samples, cache=cache)
    for remark in calibration.record.remarks:
        stderr.print(f"edgekit: warning: {remark}", markup=False)
    return calibration


class ExportProgress:
    """One line per bundle on a terminal, with what happens to it now; elsewhere a line for each change."""

    def __init__(self, names: list[str]) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        from edgekit.cli.output import stderr

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[stage]}"))
        self._bars = Progress(*columns, TimeElapsedColumn(), console=stderr, transient=True)
        self._tasks: dict[str, Any] = {}
        for name in ("reference", *names):
            self.show(name, "waiting")

    def __enter__(self) -> "ExportProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, name: str, stage: str) -> None:
        """Say that `name` is now at `stage`."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1, stage=stage)
        self._bars.update(self._tasks[name], stage=stage, completed=1 if stage in ("done", "failed") else 0)
        if not self._bars.console.is_terminal and stage != "waiting":
            self._bars.console.print(f"{name}: {stage}")


def _show_plans(plans: "list[PlannedExport]", *, as_json: bool) -> None:
    from edgekit.cli.output import human_size, print_json, print_table

    if as_json:
        print_json(
            [
                {
                    "target": plan.target.name,
                    "via": plan.route,
                    "scheme": plan.scheme,
                    "rewrites": plan.rewrites,
                    "bundle": str(plan.path),
                    "expected_size_bytes": plan.expected_size_bytes,
                    "problem": str(plan.problem) if plan.problem else None,
                }
                for plan in plans
            ]
        )
        return
    print_table(
        ["target", "via", "scheme", "bundle", "expected size (weights)", "problem"],
        [
            [
                plan.target.name,
                plan.route,
                plan.scheme,
                str(plan.path),
                human_size(plan.expected_size_bytes),
                str(plan.problem or ""),
            ]
            for plan in plans
        ],
    )


def _as_dict(outcome: "Outcome") -> dict[str, Any]:
    return {
        "bundle": str(outcome.plan.path),
        "target": outcome.plan.target.name,
        "via": outcome.plan.route,
        "scheme": outcome.plan.scheme,
        "rewrites": outcome.plan.rewrites,
        "ok": outcome.ok,
        "error": str(outcome.error) if outcome.error else None,
        "seconds": outcome.seconds,
        "cached": outcome.cached,
        "manifest": outcome.manifest.model_dump(mode="json") if outcome.manifest else None,
    }


def _show_outcomes(outcomes: "list[Outcome]") -> None:
    from edgekit.bundle import Bundle
    from edgekit.cli.output import human_size, parity_text, print_table, quality_text

    rows = []
    for outcome in outcomes:
        plan, manifest = outcome.plan, outcome.manifest
        size, parity, accuracy = "–", "failed", "–"
        if manifest:
            size = human_size(Bundle(path=plan.path, manifest=manifest).model_size_bytes)
            parity, accuracy = parity_text(manifest.parity), quality_text(manifest.accuracy, manifest.written)
        scheme = "+".join((plan.scheme, *plan.rewrites))
        rows.append([plan.target.name, plan.route, scheme, size, parity, accuracy, *_times(outcome)])
    headers = ["target", "via", "scheme", "size", "parity with the source", _quality(outcomes)]
    print_table([*headers, "converted in", "proven in"], rows)
    _tell_tolerances(outcomes)


def _times(outcome: "Outcome") -> list[str]:
    """What each stage took; `cached` is what was not done now."""
    taken = {stage: f"{seconds:.1f} s" for stage, seconds in outcome.seconds.items()}
    taken |= dict.fromkeys(outcome.cached, "cached")
    return [taken.get(stage, "–") for stage in ("convert", "prove")]


def _quality(outcomes: "list[Outcome]") -> str:
    """The name of the column that tells how good the answers are."""
    from edgekit.cli.output import QUALITY

    written = any(outcome.manifest and outcome.manifest.written for outcome in outcomes)
    return QUALITY if written else "accuracy"


def _tell_tolerances(outcomes: "list[Outcome]") -> None:
    """Say where a rewrite widened the tolerance of a scheme, by how much, and what was measured."""
    from edgekit.export.schemes import tolerance_of
    from edgekit.model.rewrites import REWRITES

    for outcome in outcomes:
        plan, manifest = outcome.plan, outcome.manifest
        wider = [name for name in plan.rewrites if REWRITES[name].adds_tolerance]
        if wider and manifest and manifest.parity.max_abs_difference is not None:
            added = ", ".join(f"{name} adds {REWRITES[name].adds_tolerance:g}" for name in wider)
            scheme = f"{plan.scheme} ({tolerance_of(plan.schemes).relative:g})"
            largest = max(1.0, manifest.parity.max_abs_reference or 0.0)
            measured = f"measured {manifest.parity.max_abs_difference / largest:.2g}"
            typer.echo(f"{plan.name}: {added} to the relative tolerance of {scheme}; {measured}.")


def _complain(outcomes: "list[Outcome]") -> None:
    """Say what failed and why, and what to type next."""
    from edgekit.cli.output import stderr
    from edgekit.program import HUB_WRITERS, WRITING_TASKS

    for outcome in outcomes:
        if outcome.error:
            stderr.print(f"edgekit: error: {' '.join(str(outcome.error).split())}", markup=False)
        elif not outcome.ok and outcome.manifest:
            parity = outcome.manifest.parity
            why = parity.note or f"|Δ| {parity.max_abs_difference:.2g} is over the tolerance {parity.tolerance:.2g}"
            stderr.print(f"edgekit: error: {outcome.plan.path} is written as failed: {why}", markup=False)
    good = next((outcome for outcome in outcomes if outcome.ok), None)
    if good and good.manifest and good.manifest.task in ("classify", "text-classification"):
        stderr.print(f'Next: edgekit predict {good.plan.path} "Datei speichern"', markup=False)
    elif good and good.manifest and (verb := HUB_WRITERS.get(good.manifest.task, good.manifest.task)) in WRITING_TASKS:
        text = "Save" if verb == "generate" else "Delete selected items"
        stderr.print(f'Next: edgekit {verb} {good.plan.path} "{text}"', markup=False)
    elif good:
        stderr.print(f"Next: {good.plan.path}/README.md shows how to call it", markup=False)
