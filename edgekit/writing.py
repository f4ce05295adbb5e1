"""Texts from a model that writes: a checkpoint (in its framework) or a bundle (in its runtime), token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekit.bundle import MANIFEST, TOKENIZER, Bundle, open_bundle
from edgekit.checkpoint import load_checkpoint
from edgekit.errors import DataError, RefusedError
from edgekit.proof.writing import Prompt, RunWriter, WritingSettings, WrittenText, context_of, run_here, write_texts
from edgekit.text.processor import BOS_ID, EOS_ID, Processor
from edgekit.text.streaming import TextStream

WritingTask = Literal["generate", "translate"]
#: the number of a text, and what follows it
OnText = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class TextWriter:
    """A model that writes, ready to run; `context` is how many tokens it reads at most."""

    name: str
    task: WritingTask
    processor: Processor
    stop_ids: tuple[int, ...]
    run: RunWriter
    context: int | None

    def prompt(self, text: str) -> Prompt:
        """What the model reads of a text; raises DataError for an empty one to translate."""
        ids = tuple(self.processor.encode_uncut([text])[0])
        if self.task == "generate":
            return Prompt(ids=(BOS_ID, *ids))
        if not text.strip():
            raise DataError("there is no text to translate: it is empty")
        return Prompt(ids=(BOS_ID,), source=(BOS_ID, *ids))


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
        stop_ids=(EOS_ID,),
        run=run,
        context=checkpoint.config.max_length,
    )


def bundle_writer(bundle: Bundle, task: WritingTask, run: RunWriter) -> TextWriter:
    """The writer of a bundle that `run` runs; raises RefusedError for a bundle of another task."""
    _check_task(str(bundle.path), bundle.manifest.task, task)
    return TextWriter(
        name=bundle.manifest.name,
        task=task,
        processor=Processor.load(bundle.path / TOKENIZER),
        stop_ids=(EOS_ID,),
        run=run,
        context=context_of(bundle.manifest.signatures),
    )


def _check_task(name: str, found: str, wanted: WritingTask) -> None:
    if found == wanted:
        return
    verbs = {"generate": "generate", "translate": "translate", "classify": "predict", "text-classification": "predict"}
    way = f"use `edgekit {verbs[found]}`" if found in verbs else "its README.md shows its call"
    raise RefusedError(f"{name} is of the task {found}, not {wanted}: {way}")


def write_after(
    writer: TextWriter, texts: Sequence[str], settings: WritingSettings, *, on_text: OnText | None = None
) -> tuple[TextResult, ...]:
    """Write what follows each text, or its translation; with `on_text`, pieces of it as they come.

    Raises DataError for a text that can't be tokenized, or is empty and to be translated; RunnerError.
    """
    prompts = [writer.prompt(text) for text in texts]
    streams = [TextStream(writer.processor.decode) for _ in prompts]

    def take(number: int, token: int) -> None:
        piece = streams[number].push(token)
        if piece and on_text:
            on_text(number, piece)

    chosen = replace(settings, stop_ids=(*settings.stop_ids, *writer.stop_ids), context=writer.context)
    found = write_texts(writer.run, prompts, chosen, on_token=take if on_text else None)
    if on_text:
        for number, stream in enumerate(streams):
            if rest := stream.end():
                on_text(number, rest)
    return tuple(
        TextResult(prompt=text, text=writer.processor.decode(written.ids), written=written)
        for text, written in zip(texts, found, strict=True)
    )
