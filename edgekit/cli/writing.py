"""What `generate` and `translate` share: their options, texts as they come, tokens per second."""

import contextlib
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from edgekit.proof.writing import LongPrompt, WritingSettings, WrittenText
    from edgekit.writing import TextResult, TextWriter, WritingTask

#: what these options are where nothing is said
_OWN = "the model's own, or 1"


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How a text is written."""

    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write, at most.")] = 64
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="0: the likeliest token at each step; higher: more chance.", show_default="0"),
    ] = None
    top_k: Annotated[int, typer.Option(min=0, help="Choose among the likeliest tokens only; 0: among all.")] = 0
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Choose among the likeliest tokens that have this probability together."),
    ] = 1.0
    repetition_penalty: Annotated[
        float | None,
        typer.Option(min=0.001, help="Above 1: tokens that are there already become less likely.", show_default=_OWN),
    ] = None
    num_beams: Annotated[
        int | None,
        typer.Option(min=1, help="Look for the likeliest text, with so many kept at each step.", show_default=_OWN),
    ] = None
    length_penalty: Annotated[
        float | None, typer.Option(help="With --num-beams: above 0 favours longer texts.", show_default=_OWN)
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Where chance begins.")] = 0

    def settings(self, long_prompt: "LongPrompt" = "refuse") -> "WritingSettings":
        """As the writer takes them; a usage error for beams with chance, as they look for the likeliest text."""
        from edgekit.proof.writing import WritingSettings

        temperature = self.temperature
        if temperature is None:
            temperature = 1.0 if self.top_k or self.top_p < 1 else 0.0  # these alone ask for chance, too
        if (self.num_beams or 1) > 1 and temperature > 0:
            message = "--num-beams looks for the likeliest text: leave out --temperature, --top-k and --top-p"
            raise typer.BadParameter(message, param_hint="--num-beams")
        return WritingSettings(**vars(self) | {"temperature": temperature, "long_prompt": long_prompt})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where it is written, and what is printed."""

    num_threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1
    device: Annotated[str, typer.Option(help="local, ssh:user@host[:port], adb:SERIAL, or a name of devices.toml.")] = (
        "local"
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, when all is written.")] = False


#: unknown parts of a text that are named
_PARTS = 5


def parse_long_prompt(value: str) -> "LongPrompt":
    """What to do with a text that is longer than the context; a usage error for anything else."""
    known: tuple[LongPrompt, ...] = ("refuse", "slide")
    found = next((choice for choice in known if choice == value), None)
    if found is None:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint="--on-long-prompt")
    return found


def read_texts(texts: Sequence[str], *, by_line: bool) -> list[str]:
    """The texts given, or what standard input holds for a lone -: one text, or one a line."""
    from edgekit.errors import DataError

    if list(texts) != ["-"]:
        return list(texts)
    try:
        content = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"standard input is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise DataError(message) from error
    found = content.splitlines() if by_line else [content.removesuffix("\n")]
    if not found:
        raise DataError("there is no text: standard input was empty")
    return found


def write_and_show(
    source: Path,
    task: "WritingTask",
    texts: Sequence[str],
    settings: "WritingSettings",
    options: RunOptions,
) -> None:
    """Write after each text and show it: pieces on stdout as they come, or JSON at the end; the speed on stderr.

    Ctrl-C leaves what was written, and ends with exit code 130.
    """
    from edgekit.cli.output import print_json, stderr
    from edgekit.writing import write_after

    shown = _Shown(len(texts), silent=options.as_json)
    with _opened(source, task, device=options.device, num_threads=options.num_threads) as writer, shown:
        for line in _unknown(writer, texts):
            stderr.print(line, markup=False)
        try:
            settings = writer.settle(settings)
            results = write_after(writer, texts, settings, on_text=shown.take)
        except KeyboardInterrupt:
            if options.as_json:
                print_json([_interrupted(*each) for each in zip(texts, shown.pieces, strict=True)])
            shown.close()
            stderr.print("Interrupted: what was written stays.", markup=False)
            raise typer.Exit(130) from None
    if options.as_json:
        print_json([_as_json(result) for result in results])
    for line in _remarks([result.written for result in results], settings):
        stderr.print(line, markup=False)


class _Shown:
    """Shows texts as they come, each on lines of its own; `pieces` is what has come of each."""

    def __init__(self, count: int, *, silent: bool) -> None:
        self.pieces = [""] * count
        self._silent, self._number, self._open = silent, 0, False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the last line."""
        self.close()

    def take(self, number: int, piece: str) -> None:
        """Show more of a text."""
        self.pieces[number] += piece
        if self._silent:
            return
        while self._number < number:
            sys.stdout.write("\n")
            self._number += 1
        self._open = True  # first: Ctrl-C may come in the middle of writing
        sys.stdout.write(piece)
        sys.stdout.flush()

    def close(self) -> None:
        """End the line of the last text, whose rest will not come."""
        if self._open and not self._silent:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._open = False


@contextlib.contextmanager
def _opened(source: Path, task: "WritingTask", *, device: str, num_threads: int) -> "Iterator[TextWriter]":
    """The writer on this host, or on a device that is left again."""
    from edgekit.writing import bundle_writer, open_writer

    if device == "local":
        yield open_writer(source, task, num_threads=num_threads)
        return
    from edgekit.bundle import open_bundle
    from edgekit.devices.registry import open_device
    from edgekit.devices.writing import run_there

    bundle = open_bundle(source)
    with open_device(device) as there:
        yield bundle_writer(bundle, task, run_there(there, bundle, num_threads=num_threads))


def _unknown(writer: "TextWriter", texts: Sequence[str]) -> Iterator[str]:
    """A line for each text with parts that the model can't read."""
    for number, text in enumerate(texts):
        if parts := writer.unknown_parts(text):
            where = f"text {number + 1}" if len(texts) > 1 else "the text"
            more = f" and {len(parts) - _PARTS} more" if len(parts) > _PARTS else ""
            named = ", ".join(repr(part) for part in parts[:_PARTS])
            reads = f"the model reads {writer.unknown_token} there"
            yield f"The tokenizer has no token for {named}{more} in {where}: {reads}"


def _as_json(result: "TextResult") -> dict[str, Any]:
    written = result.written
    return {
        "prompt": result.prompt,
        "text": result.text,
        "ids": list(written.ids),
        "ended": written.ended,
        "slid": written.slid,
        "prompt_tokens": written.prompt_tokens,
        "first_token_ms": written.first_ms,
        "total_ms": written.total_ms,
        "decode_tokens_per_s": _decode_rate([written]),
    }


def _interrupted(prompt: str, text: str) -> dict[str, Any]:
    return {"prompt": prompt, "text": text, "ended": "interrupted"}


def _decode_rate(texts: "Sequence[WrittenText]") -> float | None:
    """Tokens per second after the first of each text; None where no text has two, or all come at once."""
    tokens, spent_ms = 0, 0.0
    for text in texts:
        if text.first_ms is not None and text.total_ms is not None:
            tokens, spent_ms = tokens + len(text.ids) - 1, spent_ms + text.total_ms - text.first_ms
    return 1000 * tokens / spent_ms if tokens > 0 and spent_ms > 0 else None


def _remarks(texts: "Sequence[WrittenText]", settings: "WritingSettings") -> list[str]:
    """How fast it was, and how texts ended other than by their stop token."""
    from edgekit.cli.output import counted

    firsts = [text.first_ms for text in texts if text.first_ms is not None]
    beams = settings.num_beams or 1
    rate = None if beams > 1 else _decode_rate(texts)
    told = [counted(sum(len(text.ids) for text in texts), "token")]
    told += [f"{rate:.1f} tokens/s"] if rate else []
    if firsts and beams == 1:
        read = counted(sum(text.prompt_tokens for text in texts) // len(texts), "token")
        told.append(f"first token after {statistics.median(firsts):.1f} ms ({read} read)")
    lines = [", ".join(told)]
    ends = Counter(text.ended for text in texts)
    if ends["length"]:
        lines.append(f"{_texts(ends['length'], len(texts))} ended at --max-new-tokens {settings.max_new_tokens}")
    if ends["context"]:
        lines.append(
            f"{_texts(ends['context'], len(texts))} ended where the context is full; --on-long-prompt slide goes on"
        )
    if slid := sum(text.slid > 0 for text in texts):
        lines.append(f"{_texts(slid, len(texts))} forgot the oldest tokens, for the context was full")
    return lines


def _texts(count: int, of: int) -> str:
    return "the text" if of == 1 else f"{count} of {of} texts"
