"""`edgekit train`: a checkpoint from data."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekit.checkpoint import Checkpoint
    from edgekit.text.datasets import DataSpec
    from edgekit.train.training import Prepared

INTERRUPTED = 130  # the shell's exit code for Ctrl-C

_OPTIONS = {"from_checkpoint": "from"}  # options that Python has another word for
_DATA_OPTIONS = frozenset(
    (
        *("data", "text_column", "label_column", "source_column", "target_column", "languages", "target_language"),
        *("test_fraction", "validation_fraction"),
    )
)
_COLUMNS = ("text_column", "label_column", "source_column", "target_column")
_DATA, _MODEL, _TRAINING, _OUTPUT = "Data", "Model", "Training", "Output"


def run_train(  # one parameter per option, as Typer wants them
    ctx: typer.Context,
    framework: Annotated[str, typer.Option(help="torch or tensorflow.")] = "torch",
    task: Annotated[str, typer.Option(help="What to learn: classify, generate or translate.")] = "classify",
    from_checkpoint: Annotated[
        Path | None,
        typer.Option("--from", help="Train this checkpoint further, on its own data unless --data says otherwise."),
    ] = None,
    qat: Annotated[
        str,
        typer.Option(
            help="With --from: round weights and activations as TFLite's int8 or int4-weight does, so that the weights "
            "learn to bear it; then export with --quantize of that scheme."
        ),
    ] = "none",
    teacher: Annotated[
        Path | None,
        typer.Option(help="Learn also from this checkpoint's answers; its labels must be those of the data."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Softens the teacher's answers.")] = 2.0,
    teacher_weight: Annotated[float, typer.Option(help="Share of the teacher's answers in the loss, 0 to 1.")] = 0.5,
    hidden_weight: Annotated[
        float, typer.Option(help="Weight of the teacher's hidden states, where both have one tokenizer; 0: none.")
    ] = 0.1,
    data: Annotated[
        str,
        typer.Option(
            help="A .tsv, .csv, .jsonl or .parquet file (to generate, a .txt file too), or ui-strings.",
            rich_help_panel=_DATA,
        ),
    ] = "ui-strings",
    text_column: Annotated[str, typer.Option(help="Column of the text.", rich_help_panel=_DATA)] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the label.", rich_help_panel=_DATA)] = "label",
    source_column: Annotated[
        str | None,
        typer.Option(
            help="Column whose hash makes the split, to keep rows together; else the text. To translate: column of the "
            "text to translate (source).",
            rich_help_panel=_DATA,
        ),
    ] = None,
    target_column: Annotated[
        str, typer.Option(help="To translate: column of the translation.", rich_help_panel=_DATA)
    ] = "target",
    languages: Annotated[
        list[str] | None,
        typer.Option(help="Languages of ui-strings (repeatable, comma-separated); else 40.", rich_help_panel=_DATA),
    ] = None,
    target_language: Annotated[
        str | None, typer.Option(help="To translate ui-strings: from English into this one.", rich_help_panel=_DATA)
    ] = None,
    test_fraction: Annotated[float, typer.Option(help="Share held out to test on.", rich_help_panel=_DATA)] = 0.10,
    validation_fraction: Annotated[
        float, typer.Option(help="Share held out to choose the best epoch.", rich_help_panel=_DATA)
    ] = 0.05,
    size: Annotated[str, typer.Option(help="nano, tiny, mini or small.", rich_help_panel=_MODEL)] = "nano",
    tokenizer: Annotated[str, typer.Option(help="byte, bpe or wordpiece.", rich_help_panel=_MODEL)] = "bpe",
    vocab_size: Annotated[
        int, typer.Option(min=1, help="Tokens to learn (not for byte).", rich_help_panel=_MODEL)
    ] = 4096,
    max_length: Annotated[
        int, typer.Option(min=2, help="Longest text in tokens; the rest is cut.", rich_help_panel=_MODEL)
    ] = 64,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Lower-case texts.", rich_help_panel=_MODEL)] = False,
    strip_placeholders: Annotated[
        bool,
        typer.Option("--strip-placeholders", help="Take %s and {name} for a space.", rich_help_panel=_MODEL),
    ] = False,
    hidden_size: Annotated[int | None, typer.Option(help="Else that of --size.", rich_help_panel=_MODEL)] = None,
    num_layers: Annotated[int | None, typer.Option(help="Else that of --size.", rich_help_panel=_MODEL)] = None,
    num_decoder_layers: Annotated[
        int | None, typer.Option(help="To translate; else as many as the encoder's.", rich_help_panel=_MODEL)
    ] = None,
    num_heads: Annotated[int | None, typer.Option(help="Else that of --size.", rich_help_panel=_MODEL)] = None,
    num_kv_heads: Annotated[
        int | None, typer.Option(help="Heads of keys and values; else as many as heads.", rich_help_panel=_MODEL)
    ] = None,
    ffn_size: Annotated[int | None, typer.Option(help="Else that of --size.", rich_help_panel=_MODEL)] = None,
    embedding_size: Annotated[
        int | None, typer.Option(help="Else that of --size; 0: not factorised.", rich_help_panel=_MODEL)
    ] = None,
    norm: Annotated[str, typer.Option(help="layernorm or rmsnorm.", rich_help_panel=_MODEL)] = "layernorm",
    activation: Annotated[str, typer.Option(help="gelu, relu or silu.", rich_help_panel=_MODEL)] = "gelu",
    gated_ffn: Annotated[
        bool, typer.Option("--gated-ffn", help="Gated feed-forward layers (SwiGLU with silu).", rich_help_panel=_MODEL)
    ] = False,
    linear_bias: Annotated[
        bool, typer.Option("--linear-bias/--no-linear-bias", help="Biases of matrices.", rich_help_panel=_MODEL)
    ] = True,
    tied_embeddings: Annotated[
        bool,
        typer.Option(
            "--tied-embeddings/--untied-embeddings",
            help="To write: one table for tokens read and written.",
            rich_help_panel=_MODEL,
        ),
    ] = True,
    positions: Annotated[str, typer.Option(help="learned or rotary.", rich_help_panel=_MODEL)] = "learned",
    pooling: Annotated[str, typer.Option(help="mean or first.", rich_help_panel=_MODEL)] = "mean",
    shared_layers: Annotated[
        bool, typer.Option("--shared-layers", help="One block of weights for all layers.", rich_help_panel=_MODEL)
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.", rich_help_panel=_TRAINING)] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per step.", rich_help_panel=_TRAINING)] = 64,
    learning_rate: Annotated[
        float,
        typer.Option(help="Highest learning rate; with --from, 0.0005 unless given.", rich_help_panel=_TRAINING),
    ] = 2e-3,
    weight_decay: Annotated[
        float, typer.Option(help="AdamW's decay (not of norms and biases).", rich_help_panel=_TRAINING)
    ] = 0.05,
    warmup_fraction: Annotated[
        float, typer.Option(help="Share of the steps that warm up; then a cosine to 0.", rich_help_panel=_TRAINING)
    ] = 0.05,
    label_smoothing: Annotated[float, typer.Option(help="Spread over all labels.", rich_help_panel=_TRAINING)] = 0.05,
    dropout: Annotated[float, typer.Option(help="Dropout.", rich_help_panel=_TRAINING)] = 0.1,
    crop: Annotated[float, typer.Option(help="Share of texts cropped to some words.", rich_help_panel=_TRAINING)] = 0.0,
    join: Annotated[
        float, typer.Option(help="Share of texts joined with another of their label.", rich_help_panel=_TRAINING)
    ] = 0.0,
    cut: Annotated[
        float, typer.Option(help="Share of texts cut inside words, to vary bpe's subwords.", rich_help_panel=_TRAINING)
    ] = 0.0,
    cut_rate: Annotated[
        float, typer.Option(help="Share of a cut text's characters that start a piece.", rich_help_panel=_TRAINING)
    ] = 0.1,
    ngrams: Annotated[
        int,
        typer.Option(
            min=0,
            help="While training, tokens share embeddings of their character n-grams up to this length, which helps "
            "rare ones; the model stays the same size. 0: off.",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
    clip_norm: Annotated[
        float, typer.Option(help="Longest gradient, over all weights.", rich_help_panel=_TRAINING)
    ] = 1.0,
    average_decay: Annotated[
        float, typer.Option(help="Of the weights' moving average, which is kept; 0: none.", rich_help_panel=_TRAINING)
    ] = 0.998,
    patience: Annotated[
        int,
        typer.Option(min=0, help="Epochs without a better one before stopping; 0: never.", rich_help_panel=_TRAINING),
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_TRAINING)] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder to write; else checkpoints/DATA-SIZE-FRAMEWORK.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing checkpoint.", rich_help_panel=_OUTPUT)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that Ctrl-C stopped.", rich_help_panel=_OUTPUT)
    ] = False,
    log_dir: Annotated[
        Path | None, typer.Option(help="Write TensorBoard logs to this folder.", rich_help_panel=_OUTPUT)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_OUTPUT)] = False,
) -> None:
    """Train a compact Transformer, in PyTorch or TensorFlow.

    The data is split by a hash of the source string into train, validation and test; the checkpoint holds the
    weights of the epoch with the best validation accuracy (of the next token, for models that write), and its scores
    on the test part. Ctrl-C saves the state beside the output; --resume goes on with the same result. Models that
    write also train in several processes: torchrun -m edgekit train ..., or a TF_CONFIG for each.

    Examples:

        edgekit train --data reviews.csv --text-column review --label-column stars

        edgekit train --framework tensorflow --languages de,fr,it --size tiny -o checkpoints/alps

        edgekit train --resume -o checkpoints/alps

        edgekit train --from checkpoints/alps --qat int4-weight -o checkpoints/alps-int4

        edgekit train --task generate --languages en,de --norm rmsnorm --positions rotary -o checkpoints/writer

        edgekit train --task translate --target-language de -o checkpoints/english-german

        edgekit train --task translate --data pairs.tsv --source-column en --target-column fr

        edgekit train --teacher checkpoints/alps --size nano --languages de,fr,it -o checkpoints/alps-nano
    """
    from edgekit.cli.train_view import TrainingView
    from edgekit.train.interrupt import stop_on_interrupt
    from edgekit.train.training import run_training

    params, given = dict(ctx.params), _given(ctx)
    target = output or Path("checkpoints") / _default_name(params)
    view = TrainingView(as_json=as_json, quiet=_is_silent(framework))
    prepared = _prepare(params, given, target, view)
    view.show_data(prepared)
    with view.progress(prepared.settings.epochs), _log(log_dir, prepared) as logs, stop_on_interrupt() as should_stop:
        outcome = run_training(prepared, target, force=force, observers=[view, *logs], should_stop=should_stop)
    view.show_outcome(outcome)
    if outcome.state is not None:
        raise typer.Exit(INTERRUPTED)


def _is_silent(framework: str) -> bool:
    """Whether another process of this training prints."""
    from edgekit.train.workers import this_worker

    return this_worker("tensorflow" if framework == "tensorflow" else "torch").rank > 0


def _given(ctx: typer.Context) -> set[str]:
    """The names of the options that the user typed."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _default_name(params: dict[str, Any]) -> str:
    if params["from_checkpoint"] is not None:
        end = "further" if params["qat"] == "none" else params["qat"]
        return f"{Path(params['from_checkpoint']).resolve().name}-{end}"
    task = "" if params["task"] == "classify" else f"-{params['task']}"
    language = f"-{params['target_language']}" if params["target_language"] else ""
    return f"{Path(params['data']).stem or 'model'}{task}{language}-{params['size']}-{params['framework']}"


def _prepare(params: dict[str, Any], given: set[str], output: Path, view: Any) -> "Prepared":
    from edgekit.train.settings import make_settings
    from edgekit.train.state import load_state, state_path
    from edgekit.train.training import prepare_continued, prepare_resumed, prepare_training

    if params["resume"]:
        header = load_state(output).header
        _check_same(params, given, header.settings, header.data)
        view.remark(f"Reading {header.data.source}")
        return prepare_resumed(output, force=params["force"])
    checkpoint, values = _start(params, given)
    settings = make_settings(values)
    if state_path(output).exists():
        view.remark(f"{state_path(output)} holds an interrupted training: --resume goes on with it; this starts anew")
    spec = _data_spec(params)
    if checkpoint is None:
        view.remark(f"Reading {spec.source}")
        return prepare_training(settings, spec, output, force=params["force"])
    view.remark(f"Going on from {checkpoint.path}")
    asked = spec if given & _DATA_OPTIONS else None
    return prepare_continued(settings, checkpoint, asked, output, force=params["force"])


def _start(params: dict[str, Any], given: set[str]) -> tuple["Checkpoint | None", dict[str, Any]]:
    """The checkpoint that training goes on from, if any, and the settings: those of the model are then its own."""
    from edgekit.checkpoint import load_checkpoint
    from edgekit.errors import RefusedError
    from edgekit.train.settings import LEARNING_RATE_FURTHER, TrainSettings, settings_of_model

    values = {name: params[name] for name in TrainSettings.model_fields}
    if params["teacher"] is not None:
        values["teacher"] = _absolute(params["teacher"])
    if params["from_checkpoint"] is None:
        return None, values
    checkpoint = load_checkpoint(params["from_checkpoint"])
    kept = settings_of_model(checkpoint.config, checkpoint.metrics)
    for name in sorted(given & {*kept, "size", "tokenizer", "lowercase", "strip_placeholders"} - {"dropout"}):
        raise RefusedError(f"--{name.replace('_', '-')} is the checkpoint's own with --from: leave it out")
    own = {"framework": checkpoint.framework, "learning_rate": LEARNING_RATE_FURTHER, **kept}
    values |= {name: value for name, value in own.items() if name not in given}
    values["from_checkpoint"] = _absolute(checkpoint.path)
    return checkpoint, values


def _absolute(path: Path) -> str:
    """A checkpoint's folder as settings keep it: found from any working folder."""
    return str(path.expanduser().absolute())


def _data_spec(params: dict[str, Any]) -> "DataSpec":
    from pydantic import ValidationError

    from edgekit.cli.output import split_list
    from edgekit.errors import RefusedError
    from edgekit.text.datasets import DataSpec

    fields = {name: params[name] for name in (*_COLUMNS, "task")}
    _check_languages(params)
    fields["source"] = params["data"]
    fields["split"] = {"test": params["test_fraction"], "validation": params["validation_fraction"]}
    if languages := split_list(params["languages"] or ()):
        fields["languages"] = tuple(languages)
    if params["target_language"]:
        fields["languages"] = (params["target_language"],)
    try:
        return DataSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = (
            ", ".join(f"--{part}-fraction" for part in first["loc"] if part in fields["split"]) or "the data's options"
        )
        raise RefusedError(f"{where}: {first['msg']}") from error


def _check_languages(params: dict[str, Any]) -> None:
    """Refuse languages that the task does not take, or a missing one."""
    from edgekit.errors import RefusedError
    from edgekit.text.ui_strings import NAME

    translates = params["task"] == "translate"
    if params["target_language"] and not (translates and params["data"] == NAME):
        raise RefusedError(f"--target-language is for --task translate with --data {NAME}: leave it out")
    if translates and params["languages"]:
        raise RefusedError("--languages is not for --task translate: say --target-language")
    if translates and params["data"] == NAME and not params["target_language"]:
        raise RefusedError(f"--task translate with --data {NAME} needs --target-language, such as de")


def _check_same(params: dict[str, Any], given: set[str], settings: Any, data: Any) -> None:
    """Refuse an option, typed beside --resume, that is not what the interrupted training has."""
    from edgekit.cli.output import split_list
    from edgekit.errors import RefusedError
    from edgekit.text.ui_strings import NAME

    stored = {
        **dict(settings),
        **{name: getattr(data, name) for name in (*_COLUMNS, "languages")},
        "target_language": data.languages[0],
        "data": data.source,
        "test_fraction": data.split.test,
        "validation_fraction": data.split.validation,
    }
    typed = {name: params[name] for name in given & set(stored)}
    if "languages" in typed:
        typed["languages"] = tuple(split_list(typed["languages"]))
    if typed.get("data", NAME) != NAME:
        typed["data"] = str(Path(typed["data"]).expanduser().absolute())
    for name in {"from_checkpoint", "teacher"} & set(typed):
        typed[name] = _absolute(typed[name])
    for name, value in typed.items():
        if value != stored[name]:
            option = _OPTIONS.get(name, name.replace("_", "-"))
            raise RefusedError(
                f"--{option} {value} is not what the interrupted training has ({stored[name]}): "
                "leave it out, or train anew without --resume"
            )


@contextmanager
def _log(folder: Path | None, prepared: "Prepared") -> Iterator[list[Any]]:
    """Yield the TensorBoard log, if one is wanted, and close it at the end."""
    from edgekit.train.logs import TensorBoardLog

    if folder is None:
        yield []
        return
    with closing(TensorBoardLog(folder, prepared.settings.framework)) as log:
        yield [log]
