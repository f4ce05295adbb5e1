"""What a file of a model that writes is worth beside its source: the same tokens, bits per byte, and chrF."""

from collections.abc import Sequence

from edgekit.bundle import TextScores, WrittenTexts
from edgekit.errors import MissingExtraError
from edgekit.proof.golden_texts import GoldenTexts
from edgekit.proof.writing import RunWriter, WritingSettings, WrittenText, score_texts, write_texts
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import Processor
from edgekit.train.text_metrics import (
    GenerationMetrics,
    Translation,
    bits_per_byte,
    check_translation_metrics,
    translation_metrics,
)


def write_reference(run: RunWriter, texts: GoldenTexts) -> tuple[tuple[tuple[int, ...], ...], float]:
    """The source model's ids after each prompt, and its loss of the texts to score, in nats."""
    return _written(run, texts), sum(text.loss for text in score_texts(run, texts.scored)) if texts.scored else 0.0


def prove_texts(
    run: RunWriter,
    texts: GoldenTexts,
    processor: Processor | HubTokenizer,
    population: int,
    note: str,
    context: int | None = None,
) -> WrittenTexts:
    """Let a file, which reads `context` tokens at most, write after the golden prompts, and score the held-out texts.

    `population` is how many texts they were drawn from; `note` says why they are not scored, if so. Raises RunnerError
    where the file can't be run, or gives logits that are no numbers.
    """
    found = _written(run, texts, context)
    pairs = list(zip(texts.written, found, strict=True))
    different = [index for index, (wanted, own) in enumerate(pairs) if wanted != own]
    return WrittenTexts(
        prompts=len(pairs),
        texts_equal=len(pairs) - len(different),
        tokens=sum(len(wanted) for wanted, _ in pairs),
        tokens_equal=sum(_equal(wanted, own) for wanted, own in pairs),
        first_difference=_tell(processor, different[0], pairs[different[0]]) if different else "",
        scores=_scores(texts, sum(text.loss for text in score_texts(run, texts.scored)), found, processor)
        if texts.scored
        else None,
        reference_scores=_scores(texts, texts.loss, texts.written, processor) if texts.scored else None,
        samples=len(texts.references) or len(texts.scored),
        population=population,
        note=note,
    )


def _written(run: RunWriter, texts: GoldenTexts, context: int | None = None) -> tuple[tuple[int, ...], ...]:
    settings = WritingSettings(max_new_tokens=texts.max_new_tokens, stop_ids=texts.stop_ids, context=context)
    return tuple(_with_end(text, texts.stop_ids[:1]) for text in write_texts(run, texts.prompts, settings))


def _with_end(text: WrittenText, end: tuple[int, ...]) -> tuple[int, ...]:
    """The ids with the `end` where it was written: to end too early is a difference, too."""
    return (*text.ids, *end) if text.ended == "stop" else text.ids


def _equal(wanted: Sequence[int], found: Sequence[int]) -> int:
    return sum(one == other for one, other in zip(wanted, found, strict=False))


def _tell(processor: Processor | HubTokenizer, number: int, pair: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    """Where the first text departs, in words."""
    wanted, found = pair
    place = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(map(len, pair)))
    return (
        f"prompt {number} from token {place} on: {processor.decode(found[place:])[:30]!r}, "
        f"not {processor.decode(wanted[place:])[:30]!r}"
    )


def _scores(
    texts: GoldenTexts, loss: float, written: Sequence[Sequence[int]], processor: Processor | HubTokenizer
) -> TextScores:
    found = bits_per_byte(loss, texts.size_bytes)
    if not texts.references:
        return TextScores(bits_per_byte=found)
    try:
        check_translation_metrics()
    except MissingExtraError as error:
        return TextScores(bits_per_byte=found, note=f"chrF is not measured: {error}")
    plain = GenerationMetrics(
        examples=len(texts.scored), tokens=0, size_bytes=texts.size_bytes, bits_per_byte=found, accuracy=0.0
    )
    translations = [
        Translation(source=source, references=references, written=processor.decode(ids))
        for source, references, ids in zip(texts.sources, texts.references, written, strict=False)
    ]
    metrics = translation_metrics(plain, translations)
    return TextScores(
        bits_per_byte=found,
        chrf=metrics.chrf,
        chrf_signature=metrics.chrf_signature,
        placeholder_accuracy=metrics.placeholder_accuracy,
        with_placeholders=metrics.with_placeholders,
    )
