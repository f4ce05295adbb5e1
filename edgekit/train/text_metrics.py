"""What a model that writes gets right on held-out texts: bits per byte, chrF and BLEU by sacrebleu, placeholders."""

import importlib
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest

from pydantic import BaseModel, ConfigDict

from edgekit.extras import check_installed
from edgekit.text.corpora import Pair, placeholders


class GenerationMetrics(BaseModel):
    """How well the texts of the test part are foretold.

    `bits_per_byte` is the loss of all tokens and of the texts' ends over the texts' UTF-8 bytes, which no tokenizer
    changes; `accuracy` is the share of tokens that were the likeliest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int
    tokens: int
    size_bytes: int
    bits_per_byte: float
    accuracy: float


class TranslationMetrics(GenerationMetrics):
    """How good greedy translations of the test part's source texts are, too.

    `chrf` and `bleu` are sacrebleu's, 0 to 100, over `sources` with all their translations as references; their
    signatures say exactly what was computed. `placeholder_accuracy` is the share of the `with_placeholders` sources
    whose translation has exactly their placeholders; None where there are none. `exact` is the share of translations
    that are a reference.
    """

    sources: int
    chrf: float
    chrf_signature: str
    bleu: float
    bleu_signature: str
    exact: float
    with_placeholders: int
    placeholder_accuracy: float | None


class Translation(BaseModel):
    """One source text with its references and the model's translation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    references: tuple[str, ...]
    written: str


def bits_per_byte(loss_sum: float, size_bytes: int) -> float:
    """Return the bits per UTF-8 byte of a loss summed in nats."""
    return loss_sum / math.log(2) / size_bytes


def references_of(pairs: Sequence[Pair]) -> dict[str, tuple[str, ...]]:
    """Return all translations of each source text."""
    found: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        found[pair.source].append(pair.target)
    return {source: tuple(targets) for source, targets in found.items()}


def check_translation_metrics() -> None:
    """Raise MissingExtraError without sacrebleu, before hours of training rather than after."""
    check_installed(("sacrebleu",), "--task translate")


def translation_metrics(scores: GenerationMetrics, translations: Sequence[Translation]) -> TranslationMetrics:
    """Compare translations with their references; at least one."""
    sacrebleu = importlib.import_module("sacrebleu.metrics")
    written = [one.written for one in translations]
    references = [list(column) for column in zip_longest(*(one.references for one in translations))]
    chrf, bleu = sacrebleu.CHRF(), sacrebleu.BLEU()
    found = {name: metric.corpus_score(written, references).score for name, metric in (("chrf", chrf), ("bleu", bleu))}
    marked = [one for one in translations if placeholders(one.source)]
    kept = sum(placeholders(one.source) == placeholders(one.written) for one in marked)
    return TranslationMetrics(
        **dict(scores),
        **found,
        sources=len(translations),
        chrf_signature=str(chrf.get_signature()),
        bleu_signature=str(bleu.get_signature()),
        exact=sum(one.written in one.references for one in translations) / len(translations),
        with_placeholders=len(marked),
        placeholder_accuracy=kept / len(marked) if marked else None,
    )
