"""Writes texts with an exported file, by the loop of `devices/runner`: the same that runs on a device."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from edgekit.program import Signature
from edgekit.proof.replay import OnEvent, run_job
from edgekit.proof.runner_events import Event

LongPrompt = Literal["refuse", "slide"]
#: the number of a prompt, and a token that follows it
OnToken = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Token ids to go on from, and those of the text to translate, for a model that does."""

    ids: tuple[int, ...]
    source: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WritingSettings:
    """How to write, as `devices/runner/generation.py` says; greedy by default. None: as the model's settings have it.

    `context` is how many tokens the model reads, for files that do not say so themselves: those whose cache grows.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float | None = None
    seed: int = 0
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] = "never"
    rules: dict[str, Any] = field(default_factory=dict)
    long_prompt: LongPrompt = "refuse"
    stop_ids: tuple[int, ...] = ()
    context: int | None = None


def context_of(signatures: Sequence[Signature]) -> int | None:
    """How many tokens a model reads, by its signatures: what the longest of its states holds; None without states."""
    states = [spec for each in signatures for spec in each.inputs if spec.name in each.states and len(spec.shape) > 2]
    return max((spec.shape[2] for spec in states), default=None)


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """The ids that were written after a prompt, without the stop token, and why they ended there.

    `slid`: how often the oldest tokens were forgotten. `first_ms` and `total_ms` are from the start of the prompt to
    the first and the last token, None where there is none.
    """

    ids: tuple[int, ...]
    ended: Literal["stop", "length", "context"]
    slid: int
    prompt_tokens: int
    first_ms: float | None
    total_ms: float | None


class RunWriter(Protocol):
    """Runs a job of the operation `generate` somewhere and returns its events, each told of as it comes."""

    def __call__(self, fields: dict[str, Any], on_event: OnEvent) -> list[Event]:
        """Raise RunnerError where the file can't be run, or refuses a prompt."""


def run_here(model: Path, runtime: str, *, num_threads: int = 1, timeout_s: float = 900) -> RunWriter:
    """Return what runs such jobs on this host, in a fresh process."""

    def run(fields: dict[str, Any], on_event: OnEvent) -> list[Event]:
        with tempfile.TemporaryDirectory(prefix="edgekit-generate-") as folder:
            return run_job(
                model,
                runtime,
                Path(folder),
                timeout_s=timeout_s,
                num_threads=num_threads,
                on_event=on_event,
                operation="generate",
                generation=fields,
            )

    return run


def write_texts(
    run: RunWriter,
    prompts: Sequence[Prompt],
    settings: WritingSettings,
    *,
    on_token: OnToken | None = None,
) -> tuple[WrittenText, ...]:
    """Go on from each prompt; with `on_token`, each token is told of as it is chosen.

    Raises RunnerError: a prompt that the file can't take, logits that are no numbers, a missing runtime, a crash.
    """
    found: dict[int, WrittenText] = {}

    def take(event: Event) -> None:
        if event["event"] == "token" and on_token:
            on_token(event["prompt"], event["id"])
        elif event["event"] == "written":
            found[event["prompt"]] = _text(event)

    if prompts:
        run(job_fields(prompts, settings, stream=on_token is not None), take)
    return tuple(found[number] for number in range(len(prompts)))


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """The losses of the `tokens` of a text after its first, summed, in nats; `correct` of them were the likeliest."""

    loss: float
    correct: int
    tokens: int


def score_texts(run: RunWriter, texts: Sequence[Prompt]) -> tuple[ScoredText, ...]:
    """Score the tokens of each text, each after those before it.

    Raises RunnerError: a text that the file can't take, logits that are no numbers, a missing runtime, a crash.
    """
    found: dict[int, ScoredText] = {}

    def take(event: Event) -> None:
        if event["event"] == "scored":
            names = ("loss", "correct", "tokens")
            found[event["prompt"]] = ScoredText(**{name: event[name] for name in names})

    run(job_fields(texts, WritingSettings(), stream=False) | {"score": True}, take)
    return tuple(found[number] for number in range(len(texts)))


def job_fields(prompts: Sequence[Prompt], settings: WritingSettings, *, stream: bool) -> dict[str, Any]:
    """The `generation` of a runner's job."""
    return {
        "prompts": [{"ids": list(prompt.ids), "source": list(prompt.source)} for prompt in prompts],
        "stream": stream,
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(settings).items()
            if value is not None
        },
    }


def _text(event: Event) -> WrittenText:
    names = ("ended", "slid", "prompt_tokens", "first_ms", "total_ms")
    return WrittenText(ids=tuple(event["ids"]), **{name: event[name] for name in names})
