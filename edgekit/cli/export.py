"""`edgekit export`: checkpoint → proven bundles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.cache import CacheOptions
from edgekit.cli.export_options import CalibrationOptions, ForeignOptions, FormOptions, TargetOptions
from edgekit.cli.export_view import ExportProgress, as_dict, complain, show_outcomes, show_plans
from edgekit.cli.options import grouped

if TYPE_CHECKING:
    from edgekit.cache import Cache
    from edgekit.checkpoint import Checkpoint
    from edgekit.export.asked import ForeignModel
    from edgekit.export.coreml_options import CoremlOptions
    from edgekit.export.foreign import Foreign
    from edgekit.export.pipeline import Outcome
    from edgekit.export.plan import PlannedExport
    from edgekit.export.quantize.calibration import Calibration
    from edgekit.model.config import TransformerConfig


@grouped
def run_export(
    *,
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder of a checkpoint; hf:FOLDER, hf:OWNER/NAME or hf:INSTALLED-PACKAGE (Hugging Face); "
            "package.module:function, which makes a torch.nn.Module or Keras model; a .keras file or SavedModel "
            "folder. Without it the embedded model.",
            show_default=False,
        ),
    ] = None,
    foreign: ForeignOptions,
    targets: TargetOptions,
    calibration: CalibrationOptions,
    form: FormOptions,
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
    cached: CacheOptions,
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
    from edgekit.cli.export_lengths import check_prefill, choose_lengths, source_lengths
    from edgekit.cli.measuring import parse_lengths
    from edgekit.cli.output import print_json

    lengths = parse_lengths(form.sequence_length or [], "--sequence-length")
    prefill = parse_lengths(form.prefill_length or [], "--prefill-length")
    cache = cached.open()
    model = _open_model(source, foreign, calibration, lengths, eval_samples=eval_samples, cache=cache)
    check_prefill(prefill, model.shape)
    translates = model.shape.task == "translate"
    if translates:
        prefill, model = source_lengths(model.lengths, model.shape, targets), replace(model, lengths=())
    plan = _planner(model, targets, form, output=output, force=force)
    plans = plan(lengths=model.lengths)
    if model.takes_chosen_lengths and not dry_run and not any(each.problem for each in plans):
        chosen = choose_lengths(model.source, plans, model.samples, cache)
        prefill, plans = (chosen[:-1], plans) if translates else ((), plan(lengths=chosen))
    if dry_run:
        show_plans(plans, as_json=as_json)
        raise typer.Exit(code=1 if any(plan.problem for plan in plans) else 0)
    outcomes = _export(model, plans, calibration, prefill, force=force, timeout_s=timeout, cache=cache)
    if as_json:
        print_json([as_dict(outcome) for outcome in outcomes])
    else:
        show_outcomes(outcomes)
    complain(outcomes)
    raise typer.Exit(code=0 if all(outcome.ok for outcome in outcomes) else 1)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What is exported, the lengths that were asked for, and on how many held-out examples files are tried."""

    source: "Checkpoint | Foreign"
    lengths: tuple[int, ...]
    by_default: bool
    samples: int | None

    @property
    def checkpoint(self) -> "Checkpoint | None":
        """It, where it is one of edgekit's own."""
        from edgekit.checkpoint import Checkpoint

        return self.source if isinstance(self.source, Checkpoint) else None

    @property
    def shape(self) -> "TransformerConfig | ForeignModel":
        """What a plan must know of it."""
        from edgekit.checkpoint import Checkpoint

        return self.source.config if isinstance(self.source, Checkpoint) else self.source.model

    @property
    def takes_chosen_lengths(self) -> bool:
        """Whether its lengths are for edgekit to choose: those of a model to generate are others."""
        return self.by_default and self.shape.task != "generate"


def _open_model(
    source: str | None,
    options: ForeignOptions,
    calibration: CalibrationOptions,
    lengths: tuple[int, ...],
    *,
    eval_samples: str | None,
    cache: "Cache | None",
) -> _Model:
    from edgekit.checkpoint import embedded_checkpoint_path, load_checkpoint
    from edgekit.cli.output import stderr
    from edgekit.cli.sweeps import parse_samples
    from edgekit.export.foreign import TextChoice, is_foreign, open_foreign, refuse_foreign_options
    from edgekit.proof.held_out_texts import TEXTS

    samples = parse_samples(eval_samples or "500")
    if source is not None and is_foreign(source):
        texts = TextChoice(samples, calibration.calibration_data, calibration.num_calibration_samples, cache)
        foreign = open_foreign(source, lengths=lengths, texts=texts, **vars(options) | {"inputs": options.inputs or []})
        return _Model(source=foreign, lengths=foreign.lengths, by_default=foreign.by_default, samples=samples)
    refuse_foreign_options(**vars(options))
    if source is None:
        stderr.print("No checkpoint given: exporting the embedded model, language-id (40 languages of interface text).")
    loaded = load_checkpoint(Path(source) if source is not None else embedded_checkpoint_path())
    if eval_samples is None and loaded.config.task != "classify":
        samples = TEXTS
    return _Model(source=loaded, lengths=lengths, by_default=not lengths, samples=samples)


def _planner(
    model: _Model, targets: TargetOptions, form: FormOptions, *, output: Path, force: bool
) -> "Callable[..., list[PlannedExport]]":
    """Plans all that was asked for, at the lengths that it is given."""
    from functools import partial

    from edgekit.cli.output import split_list
    from edgekit.export.foreign import Foreign
    from edgekit.export.plan import plan_exports

    source, own = model.source, model.checkpoint
    lengths = () if own and model.lengths == (own.config.max_length,) else model.lengths
    return partial(
        plan_exports,
        source.subject.name if isinstance(source, Foreign) else source.name,
        model.shape,
        targets=split_list(targets.target or ["tflite"]),
        schemes=split_list(targets.quantize or ["none"]),
        via=split_list(targets.via or []),
        output=output,
        force=force,
        rewrites=split_list(targets.rewrite or []),
        coreml=_coreml_options(form, lengths),
        by_default=model.by_default,
        kv_cache=form.kv_cache,
        cache_dtype=form.cache_dtype,
    )


def _export(
    model: _Model,
    plans: "list[PlannedExport]",
    options: CalibrationOptions,
    prefill: tuple[int, ...],
    *,
    force: bool,
    timeout_s: float,
    cache: "Cache | None",
) -> "list[Outcome]":
    """Make and prove what is planned, with progress on stderr."""
    from edgekit.export.foreign import Foreign
    from edgekit.export.pipeline import export_checkpoint, export_subject
    from edgekit.export.subjects import HubWriterSubject

    shared: dict[str, Any] = {"force": force, "timeout_s": timeout_s, "cache": cache}
    names = [plan.name for plan in plans]
    if isinstance(model.source, Foreign):
        subject = model.source.subject
        if isinstance(subject, HubWriterSubject):
            subject = replace(subject, prefill_lengths=prefill)
        with ExportProgress(names) as progress:
            return export_subject(subject, plans, on_stage=progress.show, **shared)
    calibration = _calibrate(model.source, plans, options, cache)
    with ExportProgress(names) as progress:
        return export_checkpoint(
            model.source,
            plans,
            eval_samples=model.samples,
            calibration=calibration,
            prefill_lengths=prefill,
            on_stage=progress.show,
            **shared,
        )


def _coreml_options(form: FormOptions, lengths: tuple[int, ...]) -> "CoremlOptions":
    """Options of Core ML packages as typed; raises UnknownNameError for an iOS that is none of ours."""
    from edgekit.errors import UnknownNameError
    from edgekit.export.coreml_options import DEPLOYMENT_TARGETS, CoremlOptions

    target = form.minimum_deployment_target
    if target and target not in DEPLOYMENT_TARGETS:
        raise UnknownNameError("deployment target", target, DEPLOYMENT_TARGETS)
    asked = {"minimum_deployment_target": target, "sequence_lengths": lengths}
    shown = {"multifunction": form.multifunction, "author": form.author, "license": form.license}
    return CoremlOptions.model_validate(asked | shown)


def _calibrate(
    checkpoint: "Checkpoint", plans: "list[PlannedExport]", options: CalibrationOptions, cache: "Cache | None"
) -> "Calibration | None":
    """The texts that schemes with fixed ranges are calibrated with; None where no plan has such a scheme."""
    from edgekit.cli.output import stderr
    from edgekit.errors import RefusedError
    from edgekit.export.quantize.calibration import choose_calibration
    from edgekit.export.schemes import CALIBRATED

    if not any(plan.calibrated and plan.problem is None for plan in plans):
        if options.calibration_data:
            wanted = " or ".join(sorted(CALIBRATED))
            raise RefusedError(f"--calibration-data has no use here: only {wanted} are calibrated")
        return None
    calibration = choose_calibration(
        checkpoint, data=options.calibration_data, samples=options.num_calibration_samples, cache=cache
    )
    for remark in calibration.record.remarks:
        stderr.print(f"edgekit: warning: {remark}", markup=False)
    return calibration
