"""The part of a job that says what to write, and the events that tell what was written."""

import time
from typing import Any, NamedTuple, Optional, Protocol

from .backend import Backend
from .failures import RunError
from .generation import Generation, Prompt, write
from .rules import Rules, parse_rules
from .sampling import Sampling
from .scoring import score
from .writer import Writer

_LONG_PROMPT = ("refuse", "slide")
#: field → its type and the least and greatest value
_FIELDS: dict[str, tuple[Any, float, float]] = {
    "max_new_tokens": (int, 1, 1 << 30),
    "temperature": (float, 0, 1e6),
    "top_k": (int, 0, 1 << 30),
    "top_p": (float, 0, 1),
    "repetition_penalty": (float, 1e-3, 1e3),
    "seed": (int, 0, 1 << 62),
    "num_beams": (int, 1, 1024),
    "length_penalty": (float, -100, 100),
}


class GenerationJob(NamedTuple):
    """Prompts, how to write, and whether each token is told of as it is chosen; or texts to score.

    `context` is how many tokens the model reads, where the file does not say so itself.
    """

    prompts: tuple[Prompt, ...]
    generation: Generation
    stream: bool
    score: bool = False
    context: Optional[int] = None


def parse_generation(fields: Any) -> GenerationJob:
    """Check the `generation` of a decoded job; raises RunError("bad-job") naming the field.

    {"prompts": [{"ids": […], "source": […]}, …], "stream": bool, "score": bool, "context": null or a number,
    "stop_ids": […], "long_prompt": refuse or slide, "early_stopping": true, false or never, "rules": {…}} and the
    numbers of `Generation` and `Sampling`.
    """
    if not isinstance(fields, dict):
        raise RunError("bad-job", "the job lacks 'generation'")
    given = dict(fields)
    prompts = parse_prompts(given.pop("prompts", None))
    stream, long_prompt = given.pop("stream", True), given.pop("long_prompt", "refuse")
    if long_prompt not in _LONG_PROMPT:
        raise RunError("bad-job", f"unknown long_prompt {long_prompt!r}: known are {', '.join(_LONG_PROMPT)}")
    context = given.pop("context", None)
    if context is not None and (type(context) is not int or context < 1):
        raise RunError("bad-job", "the job's 'context' must be a number of tokens")
    scored = bool(given.pop("score", False))
    stop_ids = _ids("stop_ids", given.pop("stop_ids", []))
    early_stopping, rules = given.pop("early_stopping", "never"), _rules(given.pop("rules", {}))
    if early_stopping not in (True, False, "never"):
        raise RunError("bad-job", f"unknown early_stopping {early_stopping!r}: known are true, false and never")
    numbers = {name: _number(name, value) for name, value in given.items()}
    sampling = {name: numbers.pop(name) for name in Sampling._fields if name in numbers}
    return GenerationJob(
        prompts,
        Generation(
            stop_ids=stop_ids,
            long_prompt=long_prompt,
            sampling=Sampling(**sampling),
            early_stopping=early_stopping,
            rules=rules,
            **numbers,
        ),
        bool(stream),
        scored,
        context,
    )


def parse_prompts(given: Any) -> tuple[Prompt, ...]:
    """Check the prompts of a job, one at least; raises RunError("bad-job")."""
    if not isinstance(given, list) or not given:
        raise RunError("bad-job", "the job's generation has no 'prompts'")
    return tuple(_prompt(prompt) for prompt in given)


class Teller(Protocol):
    """What takes events: `Events`, or its like in another process."""

    def emit(self, event: str, **fields: Any) -> None:
        """Take one event."""


def generate(backend: Backend, job: GenerationJob, events: Teller) -> None:
    """Go on from each prompt, and emit `token` for each token and `written` for each text; or `scored` for each."""
    writer = Writer(backend, job.context)
    if job.score:
        for number, text in enumerate(job.prompts):
            events.emit("scored", prompt=number, **score(writer, text)._asdict())
        return
    for number, prompt in enumerate(job.prompts):
        began = time.perf_counter_ns()
        spent: list[int] = []

        def tell(token: int, number: int = number, began: int = began, spent: list[int] = spent) -> None:
            spent.append(time.perf_counter_ns() - began)
            if job.stream:
                events.emit("token", prompt=number, id=token)

        written = write(writer, prompt, job.generation, tell)
        events.emit(
            "written",
            prompt=number,
            prompt_tokens=len(prompt.ids) + len(prompt.source),
            first_ms=_ms(spent[0]) if spent else None,
            total_ms=_ms(spent[-1]) if spent else None,
            **written._asdict(),
        )


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def _prompt(given: Any) -> Prompt:
    if not isinstance(given, dict) or not set(given) <= {"ids", "source"}:
        raise RunError("bad-job", "a prompt of the job is not {'ids': […], 'source': […]}")
    return Prompt(_ids("ids", given.get("ids")), _ids("source", given.get("source", [])))


def _ids(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise RunError("bad-job", f"the job's {name!r} must be whole numbers")
    return tuple(values)


def _rules(fields: Any) -> Rules:
    try:
        return parse_rules(fields)
    except ValueError as error:
        raise RunError("bad-job", f"the job's rules have no such {error}") from error


def _number(name: str, value: Any) -> Any:
    if name not in _FIELDS:
        raise RunError("bad-job", f"the job's generation has an unknown field {name!r}")
    kind, least, most = _FIELDS[name]
    converted: Optional[Any] = float(value) if kind is float and type(value) is int else value
    if type(converted) is not kind or not least <= value <= most:
        raise RunError("bad-job", f"the job's {name!r} must be of type {kind.__name__}, {least:g} to {most:g}")
    return converted
