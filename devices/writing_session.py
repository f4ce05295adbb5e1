"""Measures a bundle of a model that writes: to the first token, from token to token, at several context lengths."""

import math
from collections.abc import Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any

from edgekit.bundle import Bundle
from edgekit.devices.accelerators import BENCHMARK_MODEL, RunPlan
from edgekit.devices.collected import OnProgress, WritingTurns
from edgekit.devices.device import Device
from edgekit.devices.runner_session import RunnerSession
from edgekit.errors import RefusedError
from edgekit.measurement import Settings
from edgekit.proof.golden import read_golden
from edgekit.proof.golden_texts import unpack_texts
from edgekit.proof.runner_events import Event
from edgekit.proof.writing import Prompt, context_of

#: tokens of the prompt where the user names none; those that leave room to write
CONTEXT_LENGTHS = (16, 64, 256, 1024)
#: tokens that are written after each prompt, where there is room
TOKENS = 32


def writes(bundle: Bundle) -> bool:
    """Whether a bundle's model writes: it has a cache that goes from call to call."""
    return any(signature.states for signature in bundle.manifest.signatures)


def check_writing(bundle: Bundle, plan: RunPlan, settings: Settings) -> None:
    """Raise RefusedError for what can't be measured of a model that writes, or context lengths that it has not."""
    name = bundle.manifest.name
    if plan.runtime == BENCHMARK_MODEL:
        raise RefusedError(
            f"Google's benchmark_model times single calls, and {name} writes, call after call: that takes the runner, "
            "and so Python on the device (`edgekit devices setup`)"
        )
    for option, asked in (("--energy", settings.energy), ("--sustained", settings.sustained_secs > 0)):
        if asked:
            raise RefusedError(f"{option} is for models that give one answer; {name} writes: leave it out")
    context, longest = _context(bundle), max(settings.context_lengths, default=0)
    most = context if _translates(bundle) else context - 1
    if longest > most:
        raise RefusedError(f"--context-length {longest}: {name} reads {context} tokens; give {most} at most")


def plan_prompts(bundle: Bundle, lengths: Sequence[int]) -> tuple[tuple[Prompt, ...], int]:
    """A prompt of real tokens for each context length (none: a few that fit), and how many tokens are written after.

    Where the model translates the lengths are those of the source text. Raises RefusedError for a bundle without texts.
    """
    texts = unpack_texts(read_golden(bundle.golden_path))
    if texts is None or not texts.prompts:
        raise RefusedError(f"{bundle.path} holds no texts to write after: export it again")
    context, translates = _context(bundle), _translates(bundle)
    fitting = [length for length in CONTEXT_LENGTHS if length <= context - TOKENS]
    chosen = sorted(set(lengths)) or fitting or [max(1, context // 2)]
    known = [prompt.source if translates else prompt.ids for prompt in (*texts.scored, *texts.prompts)]
    begin = known[0][0]
    rows = [(begin, *islice(cycle(_inner(known) or (begin,)), length - 1)) for length in chosen]
    if translates:
        return tuple(Prompt(ids=texts.prompts[0].ids, source=row) for row in rows), min(TOKENS, context - 1)
    return tuple(Prompt(ids=row) for row in rows), min(TOKENS, context - chosen[-1])


class WritingSession(RunnerSession):
    """One bundle of a model that writes on one device with Python."""

    def __init__(
        self, device: Device, bundle: Bundle, plan: RunPlan, settings: Settings, *, grace_s: float, say: OnProgress
    ) -> None:
        super().__init__(device, bundle, plan, settings, grace_s=grace_s, say=say)
        self._prompts, self._tokens = plan_prompts(bundle, settings.context_lengths)

    def samples_fields(self, turn: int) -> tuple[str, dict[str, Any]]:
        """The operation that takes samples, and what it is told."""
        settings, turns = self._settings, max(1, self._settings.rounds)
        return "measure-generation", {
            "num_runs": math.ceil(settings.num_runs / turns),
            "min_secs": settings.min_secs / turns,
            "max_secs": settings.max_secs / turns,
            "prove": turn == 0,
            "generation": {
                "prompts": [{"ids": list(prompt.ids), "source": list(prompt.source)} for prompt in self._prompts],
                "tokens": self._tokens,
                "context": _context(self._bundle),
            },
        }

    def take(self, event: Event, turn: int) -> None:
        """Add what an event says."""
        if event["event"] == "context":
            started = WritingTurns(context_length=event["tokens"], cache_bytes=event["cache_bytes"])
            self.collected.writing.setdefault(event["context"], started)
        elif event["event"] == "text":
            self._take_text(event, turn)
        else:
            super().take(event, turn)

    def _take_text(self, event: Event, turn: int) -> None:
        into, number, spent = self.collected, event["context"], event["decode_ms"]
        into.writing[number].add(event["first_ms"], spent, turn)
        into.latency_ms += spent
        into.transfer_ms += [0.0] * len(spent)
        into.steps += [number] * len(spent)
        into.rounds += [turn] * len(spent)
        self._say(f"measuring: {len(into.latency_ms)} tokens, median {median(spent):.3g} ms")


def _context(bundle: Bundle) -> int:
    return context_of(bundle.manifest.signatures) or 1


def _translates(bundle: Bundle) -> bool:
    return any(signature.given for signature in bundle.manifest.signatures)


def _inner(rows: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of all texts but their first, in order."""
    return [token for row in rows for token in row[1:]]
