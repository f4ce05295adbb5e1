"""Texts from a model that writes: a checkpoint (in its framework) or a bundle (in its runtime), token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekit.bundle import MANIFEST, OVERRIDABLE, TOKENIZER, Bundle, TextEnds, TextRules, open_bundle
from edgekit.checkpoint import load_checkpoint
from edgekit.errors import BundleError, DataError, RefusedError
from edgekit.program import HUB_WRITERS, Task
from edgekit.proof.writing import Prompt, RunWriter, WritingSettings, WrittenText, context_of, run_here, write_texts
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import BOS_ID, EOS_ID, Processor
from edgekit.text.streaming import TextStream

WritingTask = Literal["generate", "translate"]
#: the number of a text, and what follows it
OnText = Callable[[int, str], None]
_OWN_ENDS = TextEnds(begin_ids=(BOS_ID,), stop_ids=(EOS_ID,))


@dataclass(frozen=True, kw_only=True)
class TextWriter:
    """A model that writes, ready to run; `context` is how many tokens it reads at most."""

    name: str
    task: WritingTask
    processor: Processor | HubTokenizer
    ends: TextEnds
    run: RunWriter
    context: int | None
    rules: TextRules | None = None

    def settle(self, settings: WritingSettings) -> WritingSettings:
        """The settings, with the model's own where they say nothing: beams, penalties, what is forbidden and forced.

        Where tokens are drawn by chance there are no beams.
        """
        stop_ids = tuple(dict.fromkeys((*settings.stop_ids, *self.ends.stop_ids)))
        settings = replace(settings, stop_ids=stop_ids, context=self.context)
        if self.rules is None:
            return settings
        own = self.rules.model_dump(mode="json", exclude={"not_followed"})
        defaults = {name: own.pop(name) for name in OVERRIDABLE} | ({"num_beams": 1} if settings.temperature else {})
        given = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
        return replace(settings, **given, early_stopping=own.pop("early_stopping"), rules=own)

    def prompt(self, text: str) -> Prompt:
        """What the model reads of a text; raises DataError for an empty one to translate, or that has no beginning."""
        if self.task == "translate":
            if not text.strip():
                raise DataError("there is no text to translate: it is empty")
            return Prompt(ids=self.ends.begin_ids, source=self._ids(text))
        ids = self._ids(text)
        while ids and ids[-1] in self.ends.stop_ids:  # what some tokenizers put behind a text, which is to go on
            ids = ids[:-1]
        if not ids and not self.ends.begin_ids:
            raise DataError(f"the text is empty, and {self.name} does not say how a text begins: give it a word")
        return Prompt(ids=ids or self.ends.begin_ids)

    def unknown_parts(self, text: str) -> tuple[str, ...]:
        """The parts of a text that the tokenizer has no token for, each once."""
        return self.processor.encode_whole(text)[1] if isinstance(self.processor, HubTokenizer) else ()

    @property
    def unknown_token(self) -> str:
        """What the model reads in their place."""
        return self.processor.unknown[1] if isinstance(self.processor, HubTokenizer) else ""

    def _ids(self, text: str) -> tuple[int, ...]:
        if isinstance(self.processor, HubTokenizer):
            return self.processor.encode_whole(text)[0]
        return (BOS_ID, *self.processor.encode_uncut([text])[0])


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """What was written after a text."""

    prompt: str
    text: str
    written: WrittenText


def open_writer(path: Path, task: WritingTask, *, num_threads: int = 1) -> TextWriter:
    """Open the checkpoint or bundle at `path` to write with on this host.

    Raises CheckpointError or BundleError for a broken one, RefusedError for one of another task, MissingExtraError
    without a framework.
    """
    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        return bundle_writer(
            bundle, task, run_here(bundle.model_path, bundle.manifest.runtime, num_threads=num_threads)
        )
    checkpoint = load_checkpoint(path)
    _check_task(str(path), checkpoint.config.task, task)
    from edgekit.proof.in_framework import run_checkpoint

    run = run_checkpoint(checkpoint)
    return TextWriter(
        name=checkpoint.name,
        task=task,
        processor=checkpoint.processor,
        ends=_OWN_ENDS,
        run=run,
        context=checkpoint.config.max_length,
    )


def bundle_writer(bundle: Bundle, task: WritingTask, run: RunWriter) -> TextWriter:
    """The writer of a bundle that `run` runs; raises RefusedError for a bundle of another task."""
    _check_task(str(bundle.path), bundle.manifest.task, task)
    foreign = bundle.manifest.source.kind == "huggingface"
    ends = bundle.manifest.text_ends if foreign else _OWN_ENDS
    if ends is None:
        raise BundleError(f"{bundle.path} does not say how its texts begin and end: export it again")
    return TextWriter(
        name=bundle.manifest.name,
        task=task,
        processor=(HubTokenizer if foreign else Processor).load(bundle.path / TOKENIZER),
        ends=ends,
        run=run,
        context=context_of(bundle.manifest.signatures),
        rules=bundle.manifest.text_rules,
    )


def _check_task(name: str, found: Task, wanted: WritingTask) -> None:
    own = HUB_WRITERS.get(found, found)
    if own == wanted:
        return
    verbs = {"generate": "generate", "translate": "translate", "classify": "predict", "text-classification": "predict"}
    way = f"use `edgekit {verbs[own]}`" if own in verbs else "its README.md shows its call"
    raise RefusedError(f"{name} is of the task {found}, not {wanted}: {way}")


def write_after(
    writer: TextWriter, texts: Sequence[str], settings: WritingSettings, *, on_text: OnText | None = None
) -> tuple[TextResult, ...]:
    """Write what follows each text, or its translation; with `on_text`, pieces of it as they come.

    Raises DataError for a text that can't be tokenized, or is empty and to be translated; RunnerError.
    """
    prompts = [writer.prompt(text) for text in texts]
    streams, going = [TextStream(writer.processor.decode) for _ in prompts], list(range(len(prompts)))

    def finish(number: int) -> None:
        """Tell the rest of the texts before this one: each comes whole before the next begins."""
        while on_text and going and going[0] < number:
            ended = going.pop(0)
            if rest := streams[ended].end():
                on_text(ended, rest)

    def take(number: int, token: int) -> None:
        finish(number)
        piece = streams[number].push(token)
        if piece and on_text:
            on_text(number, piece)

    found = write_texts(writer.run, prompts, writer.settle(settings), on_token=take if on_text else None)
    finish(len(prompts))
    return tuple(
        TextResult(prompt=text, text=writer.processor.decode(written.ids), written=written)
        for text, written in zip(texts, found, strict=True)
    )
