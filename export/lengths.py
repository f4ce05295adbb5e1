"""Sequence lengths: which ones a file takes, and golden steps at the shortest that holds each text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError, MissingExtraError, RefusedError
from edgekit.model.sizes import multiply_accumulates
from edgekit.program import Signature
from edgekit.proof.golden import Golden, Step
from edgekit.proof.held_out_texts import choose_texts, validation_sources
from edgekit.proof.parity import POSITIONS
from edgekit.proof.prove import choose_samples
from edgekit.proof.samples import held_out

#: at most so many lengths by default: each takes time to convert, and memory for what it computes
MOST = 4
#: of source texts to translate: what writes the translation takes no less time. Of a translator of two layers each, on
#: 200 interface strings, one length more than the longest took away 27 % of the time, another 3 %, a third nothing
MOST_SOURCES = 2
#: a length more has to take away this share of the expected work
_WORTH = 0.05
#: rows that matrix kernels take at a time: a text of one token more costs as much as one of so many more. XNNPACK's are
#: of 4 (int8, ARM), 5 (int8, AVX-512 VNNI; float32, AVX2), 6 (float32, ARM) and 7 (float32, AVX-512), and which of them
#: a file will meet, nobody knows when it is written
_TILES = (4, 5, 6, 7)


@dataclass(frozen=True, kw_only=True)
class LengthChoice:
    """Lengths in tokens, ascending, and what they were chosen from, in words."""

    lengths: tuple[int, ...]
    reason: str


def default_lengths(checkpoint: Checkpoint, eval_samples: int | None, *, cache: Cache | None = None) -> LengthChoice:
    """The lengths for texts such as those of the checkpoint's validation part; one, the longest, without them.

    Of a model to translate, for the source texts there. Each is one that at least one of the `eval_samples` held-out
    texts (None: all) can prove.
    """
    config, longest = checkpoint.config, checkpoint.config.max_length
    translates = config.task == "translate"
    try:
        if translates:
            texts = list(validation_sources(checkpoint, cache=cache))
        else:
            texts = [example.text for example in held_out(checkpoint, "validation", cache=cache)]
    except (DataError, MissingExtraError) as error:
        return LengthChoice(lengths=(longest,), reason=f"its data's own lengths are not known: {error}")
    tokens = [min(len(row), longest) for row in checkpoint.processor.encode(texts)]
    if translates:  # what reads a source text is an encoder as a classifier's, without labels
        config = config.model_copy(update={"task": "classify"})
        prompts = choose_texts(checkpoint, eval_samples, cache=cache).texts.prompts
        proven_on = [len(prompt.source) for prompt in prompts]
    else:
        proven_on = choose_samples(checkpoint, eval_samples, cache=cache).mask.sum(axis=1).tolist()

    def work(length: int) -> float:
        return multiply_accumulates(config, length)

    lengths = _provable(choose_lengths(tokens, longest, work, MOST_SOURCES if translates else MOST), proven_on)
    kind = "validation texts to translate" if translates else "validation texts"
    return LengthChoice(lengths=lengths, reason=_reason(lengths, tokens, work, kind))


def lengths_for(tokens: Sequence[int], longest: int, kind: str, most: int = MOST) -> LengthChoice:
    """At most so many lengths for texts of so many tokens, of some `kind` in words, which a file is proven on, too.

    Of a model that edgekit did not build, work is taken to grow with the length: attention's square is a few percent
    of a small encoder's products at 128 tokens.
    """
    lengths = _provable(choose_lengths(tokens, longest, float, most), tokens)
    return LengthChoice(lengths=lengths, reason=_reason(lengths, tokens, float, kind))


def _reason(lengths: Sequence[int], tokens: Sequence[int], work: Callable[[int], float], kind: str) -> str:
    """What the lengths were chosen from, and what they spare."""
    padded = [next(length for length in lengths if length >= count) for count in tokens]
    share = sum(map(work, padded)) / (len(tokens) * work(lengths[-1]))
    return (
        f"chosen for {len(tokens)} {kind} of {min(tokens)} to {max(tokens)} tokens, median "
        f"{median(tokens):.0f}: {100 * share:.0f} % of the work of padding all to {lengths[-1]}"
    )


def choose_lengths(
    tokens: Sequence[int], longest: int, work: Callable[[int], float], most: int = MOST
) -> tuple[int, ...]:
    """The lengths, `longest` among them, that texts of so many `tokens` need least work with, each padded to the next.

    `work` is that of one text of a length; to it comes what kernels fill up their rows with. Exact for each number of
    lengths (dynamic programming over the candidates); the number grows while a length more is worth it.
    """
    candidates = [*range(min(_TILES), longest), longest]
    held = np.searchsorted(np.sort(tokens), candidates, side="right").tolist()
    costs = [work(length) * _filled(length) for length in candidates]
    # the last length of a plan → its work for the texts that it holds, and its lengths
    plans: dict[int, tuple[float, tuple[int, ...]]] = {
        j: (costs[j] * held[j], (length,)) for j, length in enumerate(candidates)
    }
    chosen = plans[len(candidates) - 1]
    for _ in range(1, min(most, len(candidates))):
        plans = {
            j: min(
                (spent + costs[j] * (held[j] - held[i]), (*lengths, candidates[j]))
                for i, (spent, lengths) in plans.items()
                if i < j
            )
            for j in range(1 + min(plans), len(candidates))
        }
        found = plans[len(candidates) - 1]
        if found[0] > (1 - _WORTH) * chosen[0]:
            break
        chosen = found
    return chosen[1]


def _filled(length: int) -> float:
    """The rows that kernels compute for so many, as a share of these: the mean of what is known of kernels."""
    return sum(-(-length // tile) * tile for tile in _TILES) / (len(_TILES) * length)


def refuse_lengths(lengths: Sequence[int], longest: int) -> str | None:
    """Why a model of `longest` tokens can't be given these lengths (ascending); None where it can."""
    if not lengths or lengths[-1] == longest:
        return None
    how = "add it" if lengths[-1] < longest else f"the model takes no more than {longest}"
    return f"the longest --sequence-length must be the model's own, {longest} tokens, not {lengths[-1]}: {how}"


def length_name(length: int) -> str:
    """The name of the signature of a length that is not the longest."""
    return f"length_{length}"


def length_signatures(signature: Signature, lengths: Sequence[int]) -> tuple[Signature, ...]:
    """`signature`, of the longest of `lengths` (ascending), and one `length_N` for each shorter one, descending."""
    return (signature, *(_with_length(signature, length) for length in reversed(lengths[:-1])))


def _with_length(signature: Signature, length: int) -> Signature:
    longest = signature.inputs[0].shape[-1]
    inputs = tuple(spec.model_copy(update={"shape": (*spec.shape[:-1], length)}) for spec in signature.inputs)
    outputs = tuple(
        spec.model_copy(update={"shape": (spec.shape[0], length, *spec.shape[2:])})
        if _is_by_token(spec.name, spec.shape, longest)
        else spec
        for spec in signature.outputs
    )
    return signature.model_copy(update={"name": length_name(length), "inputs": inputs, "outputs": outputs})


def _is_by_token(name: str, shape: Sequence[int], length: int) -> bool:
    """Whether an output of inputs of `length` tokens has a value for each of them, along its second axis."""
    return len(shape) > 1 and shape[1] == length and (len(shape) > 2 or name in POSITIONS)


def fit_steps(golden: Golden, lengths: Sequence[int], signature_of: Callable[[int], str]) -> Golden:
    """Cut the padding of every step, so that each of `lengths` (ascending, in tokens) is proven by at least one.

    Inputs are [1, length] and padded to the right where `mask` is 0; the outputs stay, as padding changes no answer.
    `signature_of` names the signature of a length. Raises RefusedError for a length that no text is short enough for.
    """
    tokens = count_tokens(golden)
    chosen, unproven = _assign(tokens, lengths)
    if unproven:
        raise RefusedError(
            f"a sequence length of {unproven[0]} can't be proven: of {len(tokens)} held-out texts none to spare has "
            f"{unproven[0]} tokens or fewer; leave it out of --sequence-length, or give more --eval-samples"
        )
    steps = tuple(
        cut_step(step, length, signature_of(length)) for step, length in zip(golden.steps, chosen, strict=True)
    )
    return replace(golden, steps=steps)


def fit_each(golden: Golden) -> Golden:
    """Cut every step to its own tokens, for a file that takes any length; the longest text keeps its padding."""
    tokens = count_tokens(golden)
    whole = int(np.argmax(tokens))
    steps = tuple(
        step if place == whole else cut_step(step, max(1, count), step.signature)
        for place, (step, count) in enumerate(zip(golden.steps, tokens, strict=True))
    )
    return replace(golden, steps=steps)


def count_tokens(golden: Golden) -> list[int]:
    """How many tokens the text of each step has: what its mask does not hide."""
    return [int(np.asarray(step.inputs["mask"]).sum()) for step in golden.steps]


def cut_step(step: Step, length: int, signature: str) -> Step:
    """The step with so many tokens of each input, for another signature."""
    longest = next(iter(step.inputs.values())).shape[1]
    inputs = {name: np.ascontiguousarray(value[:, :length]) for name, value in step.inputs.items()}
    outputs = {
        name: np.ascontiguousarray(value[:, :length]) if _is_by_token(name, np.shape(value), longest) else value
        for name, value in step.outputs.items()
    }
    return replace(step, signature=signature, inputs=inputs, outputs=outputs)


def _provable(lengths: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
    """Those of the lengths that texts of so many tokens can prove, each by a text of its own."""
    _, unproven = _assign(tokens, lengths)
    if lengths[-1] in unproven:
        return tuple(lengths[-1:])
    return tuple(length for length in lengths if length not in unproven)


def _assign(tokens: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """The length for each text, the shortest that fits but where another has none; and the lengths left without."""
    chosen = [next(length for length in lengths if length >= count) for count in tokens]
    unproven = []
    for length in lengths:
        if length not in chosen:
            fitting = [i for i, count in enumerate(tokens) if count <= length and chosen.count(chosen[i]) > 1]
            if fitting:
                chosen[max(fitting, key=lambda i: tokens[i])] = length
            else:
                unproven.append(length)
    return chosen, unproven
