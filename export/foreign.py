"""Sources that are no checkpoints, as the command line names them: what to plan with, and what to export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle import TOKENIZER
from edgekit.cache import Cache
from edgekit.errors import BundleError, RefusedError
from edgekit.export.asked import ForeignModel
from edgekit.export.lengths import MOST, MOST_SOURCES, LengthChoice, lengths_for
from edgekit.export.prepare import Texts
from edgekit.export.quantize.calibration import DEFAULT_SAMPLES
from edgekit.export.subjects import ForeignSubject, HubWriterSubject
from edgekit.program import HUB_WRITERS, SourceRef
from edgekit.proof.texts import SAMPLE_TEXTS, interface_strings, ordinary_texts
from edgekit.sources.factory import factory_source, guess_framework, is_factory
from edgekit.sources.files import file_source, is_file_source
from edgekit.sources.hub_folder import PREFIX, TASKS, find_hub_folder, hub_source
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.readers import read_file

#: texts of a foreign model's proof: without labels, more of them say little more
MOST_TEXTS = 64
#: models that join each token with its neighbours by slices: torch.export 2.13 rules lengths of 1 and 2 out of a graph
#: of any length, and so the whole graph
_NEIGHBOURS = frozenset(["mobilebert"])


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A source that is no checkpoint: what is exported, what a plan must know of it, and the sequence lengths that are
    planned with (none: its one, but where they are to be chosen `by_default`).
    """

    subject: ForeignSubject | HubWriterSubject
    model: ForeignModel
    lengths: tuple[int, ...] = ()
    by_default: bool = False


@dataclass(frozen=True)
class TextChoice:
    """How many texts to prove on (None: all there are), what to calibrate with, and where texts may be kept."""

    samples: int | None = None
    calibration_data: Path | None = None
    calibration_samples: int = DEFAULT_SAMPLES
    cache: Cache | None = None


def is_foreign(source: str) -> bool:
    """Whether a source is named as something else than the folder of a checkpoint."""
    return source.startswith(PREFIX) or is_factory(source) or is_file_source(source)


def open_foreign(
    source: str, *, task: str | None, inputs: list[str], lengths: tuple[int, ...], texts: TextChoice, **options: Any
) -> Foreign:
    """Check a source without loading any framework; `options` are `pooling`, `normalize` and `trust_remote_code`.

    Raises RefusedError for options that it has no use for, and what its kind raises.
    """
    if not source.startswith(PREFIX):
        return _open_custom(source, task, inputs, lengths, texts, options)
    if inputs:
        raise RefusedError(f"--input has no use for {source}: its inputs are known")
    return _open_hub(source, task, lengths, texts, options)


def _open_custom(
    source: str, task: str | None, inputs: list[str], lengths: tuple[int, ...], texts: TextChoice, options: Any
) -> Foreign:
    """A function of the user's, or a file."""
    unused = {
        "--task": task,
        "--pooling": options["pooling"] != "none",
        "--normalize": options["normalize"],
        "--sequence-length": lengths,
        "--calibration-data": texts.calibration_data,
    }
    if flag := next((flag for flag, value in unused.items() if value), None):
        raise RefusedError(f"{flag} has no use for {source}: it is of models that take texts, named hf:FOLDER")
    if is_factory(source):
        named = factory_source(source, inputs, guess_framework(source))
        name = source.replace(":", ".")
    else:
        named = file_source(source, inputs, trust_remote_code=options["trust_remote_code"])
        name = Path(source).stem
    nothing = Texts(samples=(), origin="")
    subject = ForeignSubject(
        name=name, task="custom", framework=named.framework, sources={named.framework: named}, texts=nothing
    )
    return Foreign(subject=subject, model=ForeignModel(frameworks=(named.framework,), parameters=0))


def refuse_foreign_options(**options: Any) -> None:
    """Raise RefusedError for options that a checkpoint has no use for."""
    flags = {"inputs": "--input", "trust_remote_code": "--trust-remote-code"}
    for name, value in options.items():
        if value and value != "none":
            flag = flags.get(name, f"--{name}")
            raise RefusedError(
                f"{flag} has no use for a checkpoint of edgekit: a Hugging Face model is named hf:FOLDER"
            )


def _open_hub(reference: str, task: str | None, lengths: tuple[int, ...], texts: TextChoice, options: Any) -> Foreign:
    if task is None:
        raise RefusedError(f"say what {reference} is for: --task {', '.join(TASKS)}")
    folder = find_hub_folder(reference, trust_remote_code=options["trust_remote_code"])
    source = hub_source(folder, task, length=lengths[-1] if lengths else None, **options)
    several_by_text = gives_one_vector(source) or HUB_WRITERS.get(source.task) == "translate"
    if len(lengths) > 1 and not several_by_text:
        raise RefusedError(
            "several --sequence-length are offered for one answer by text and for source texts to translate, not for "
            f"{task}: give one"
        )
    kind = HubWriterSubject if source.task in HUB_WRITERS else ForeignSubject
    subject = kind(
        name=folder.name,
        task=source.task,
        framework="torch",
        sources={"torch": source},
        texts=_choose_texts(texts),
    )
    length = source.options.length or 0
    model = ForeignModel(
        frameworks=("torch",),
        parameters=folder.parameters,
        max_length=length,
        task=HUB_WRITERS.get(source.task, "classify"),
        any_length=folder.config["model_type"] not in _NEIGHBOURS,
    )
    several = lengths if len(lengths) > 1 else ()
    return Foreign(subject=subject, model=model, lengths=several, by_default=not lengths and several_by_text)


def gives_one_vector(source: SourceRef) -> bool:
    """Whether the outputs have the same shape for every length of text."""
    return source.task == "text-classification" or source.options.pooling != "none"


def hub_lengths(foreign: Foreign) -> LengthChoice:
    """The lengths for the texts that the model is proven on; one, its longest, where it has no tokenizer.json."""
    longest, texts = foreign.model.max_length, foreign.subject.texts
    try:
        tokenizer = HubTokenizer.load(Path(foreign.subject.sources["torch"].path) / TOKENIZER)
    except BundleError as error:
        return LengthChoice(lengths=(longest,), reason=f"its texts' own lengths are not known: {error}")
    _, mask = tokenizer.encode_padded(texts.samples, longest)
    tokens = [count for count in mask.sum(axis=1).tolist() if count]
    return lengths_for(tokens, longest, "sample texts", MOST_SOURCES if foreign.model.task == "translate" else MOST)


def _choose_texts(choice: TextChoice) -> Texts:
    """Texts to prove and calibrate with; real, but not of the data that the model was trained on."""
    samples, origin = ordinary_texts(min(choice.samples or MOST_TEXTS, MOST_TEXTS), choice.cache)
    if choice.calibration_data:
        rows = read_file(choice.calibration_data.expanduser(), "text", "text", None).rows
        calibration, source = tuple(dict.fromkeys(row.text for row in rows)), str(choice.calibration_data)
    else:
        strings, where = interface_strings(choice.calibration_samples, choice.cache)
        calibration, source = strings or SAMPLE_TEXTS, where if strings else "edgekit's own texts"
    return Texts(
        samples=samples,
        origin=origin,
        calibration=calibration[: choice.calibration_samples],
        calibration_origin=source,
        calibration_asked=choice.calibration_samples,
    )
