"""What a training of each task is made of: its trainer, its batches, and how it is validated and scored."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights
from edgekit.text.corpora import Corpus
from edgekit.text.datasets import Dataset
from edgekit.text.processor import Processor
from edgekit.train.distillation import Teacher
from edgekit.train.epochs import TextEpochs, encode_examples
from edgekit.train.loop import EpochSource, Validated, accuracy_of, predict_labels
from edgekit.train.metrics import ClassificationMetrics, classification_metrics
from edgekit.train.ngrams import ngram_matrix
from edgekit.train.qat import FIRST_BATCHES
from edgekit.train.settings import TrainSettings
from edgekit.train.text_metrics import GenerationMetrics, TranslationMetrics
from edgekit.train.texts import WritingEpochs, encode_pairs, score_texts, score_translations, validate_texts
from edgekit.train.trainer import Steps, make_text_trainer, make_trainer
from edgekit.train.workers import ONE, Worker, check_alone, this_worker

Metrics = TranslationMetrics | GenerationMetrics | ClassificationMetrics


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training as the loop sees it.

    `observe` lets the first batches set the ranges of quantized activations; `score` gives the test part's metrics for
    some weights; `agree` tells whether any worker wants to stop; `too_long` pairs were left out.
    """

    trainer: Steps[Any]
    source: EpochSource
    validate: Callable[[], Validated]
    score: Callable[[Weights], Metrics]
    observe: Callable[[], None] = lambda: None
    agree: Callable[[bool], bool] = bool
    worker: Worker = ONE
    too_long: int = 0


def classification_job(
    config: TransformerConfig,
    weights: Weights,
    settings: TrainSettings,
    dataset: Dataset,
    processor: Processor,
    teacher: Teacher | None,
) -> Job:
    """Return the training of a classifier; raises RefusedError in one of several processes."""
    check_alone(settings.framework, settings.task)
    trainer = make_trainer(config, weights, settings, ngram_matrix(processor, settings.ngrams), teacher)
    teacher_processor = teacher.processor if teacher is not None else None
    source = TextEpochs(dataset.train, dataset.labels, processor, settings, teacher_processor)
    validation = encode_examples(dataset.validation, dataset.labels, processor)

    def observe() -> None:
        for batch in islice(source.batches(0), FIRST_BATCHES):
            trainer.observe(batch)

    def score(best: Weights) -> ClassificationMetrics:
        test = encode_examples(dataset.test, dataset.labels, processor)
        scorer = make_trainer(config, best, settings.model_copy(update={"qat": "none"}))
        return classification_metrics(test.labels, predict_labels(scorer, test.rows), dataset.labels)

    def validate() -> Validated:
        return Validated(accuracy=accuracy_of(trainer, validation))

    return Job(trainer=trainer, source=source, validate=validate, score=score, observe=observe)


def writing_job(
    config: TransformerConfig, weights: Weights, settings: TrainSettings, corpus: Corpus, processor: Processor
) -> Job:
    """Return the training of a model that writes."""
    encode = partial(encode_pairs, processor=processor, translate=settings.task == "translate")
    worker = this_worker(settings.framework)
    trainer = make_text_trainer(config, weights, settings, worker)
    train, validation = encode(corpus.train, training=True), encode(corpus.validation, training=False)

    def score(best: Weights) -> TranslationMetrics | GenerationMetrics:
        test = encode(corpus.test, training=False)
        scorer = make_text_trainer(config, best, settings, ONE)
        if settings.task == "translate":
            return score_translations(scorer, corpus.test, test, processor)
        return score_texts(scorer, test, len(corpus.test))

    return Job(
        trainer=trainer,
        source=WritingEpochs(train, settings),
        validate=lambda: validate_texts(trainer, validation),
        score=score,
        agree=trainer.agree,
        worker=worker,
        too_long=train.too_long,
    )
