"""Models that write: both trainers do the same, trainings go on where they stopped, and scores mean what they say."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import CheckpointError, DataError, RefusedError
from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_pytorch import build_model
from edgekit.model.weights import initial_weights
from edgekit.program import FRAMEWORKS, Framework, Task
from edgekit.sources.checkpoint import build_program
from edgekit.text.corpora import Pair, reload_corpus
from edgekit.text.datasets import DataSpec
from edgekit.text.processor import BOS_ID, EOS_ID, train_processor
from edgekit.text.splits import SplitRule
from edgekit.train.batches import TextBatch, text_batch
from edgekit.train.settings import TrainSettings, make_settings
from edgekit.train.state import state_path
from edgekit.train.text_metrics import GenerationMetrics, Translation, TranslationMetrics, translation_metrics
from edgekit.train.texts import encode_pairs, score_texts, translate_texts
from edgekit.train.trainer import StepPlan, TextTrainer, make_text_trainer
from edgekit.train.training import (
    TrainingOutcome,
    TrainingReport,
    prepare_continued,
    prepare_resumed,
    prepare_training,
    run_training,
)
from edgekit.train.workers import ONE

NOUNS = {"house": "Haus", "tree": "Baum", "car": "Auto", "door": "Tür", "book": "Buch"}
COLOURS = {"red": "rot", "green": "grün", "blue": "blau", "old": "alt", "new": "neu", "big": "groß"}
PAIRS = [
    (f"{colour} {noun} %(n)s {other}", f"{NOUNS[noun]} {COLOURS[colour]} %(n)s {COLOURS[other]}")
    for colour in COLOURS
    for noun in NOUNS
    for other in COLOURS
]
TINY: dict[str, object] = {
    "tokenizer": "byte",
    "max_length": 40,
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "ffn_size": 64,
    "embedding_size": 0,
    "norm": "rmsnorm",
    "positions": "rotary",
    "activation": "silu",
    "gated_ffn": True,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "dropout": 0.1,
    "average_decay": 0.9,
    "patience": 0,
}


def tiny(task: Task, **changes: object) -> TrainSettings:
    return make_settings({**TINY, "task": task, **changes})


@pytest.fixture
def spec(tmp_path: Path) -> Callable[[Task], DataSpec]:
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\n" + "".join(f"{source}\t{target}\n" for source, target in PAIRS))
    return lambda task: DataSpec(
        source=str(path), task=task, text_column="target", split=SplitRule(test=0.1, validation=0.1)
    )


def train(
    settings: TrainSettings, spec: DataSpec, output: Path, should_stop: Callable[[], bool] = lambda: False
) -> TrainingOutcome:
    return run_training(prepare_training(settings, spec, output, force=False), output, should_stop=should_stop)


def stop_after(steps: int) -> Callable[[], bool]:
    taken = iter(range(1, 10**6))
    return lambda: next(taken) >= steps


def config(task: Task, **options: object) -> TransformerConfig:
    sizes = {"vocab_size": 50, "max_length": 12, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "num_layers": 2}
    return TransformerConfig.model_validate({**sizes, "task": task, **options})


def trainer(framework: Framework, task: Task, dropout: float = 0.0, **options: object) -> TextTrainer:
    shape = config(task, dropout=dropout, **options)
    settings = TrainSettings(framework=framework, task=task, dropout=dropout, clip_norm=0.5, weight_decay=0.1)
    return make_text_trainer(shape, initial_weights(shape, 3), settings, ONE)


def batch(task: Task, seed: int) -> TextBatch:
    generator = np.random.default_rng(seed)

    def rows(longest: int) -> list[list[int]]:
        lengths = generator.integers(1, longest, 8)
        return [[BOS_ID, *generator.integers(4, 50, length).tolist()] for length in lengths]

    return text_batch([[*row, EOS_ID] for row in rows(10)], rows(12) if task == "translate" else None)


def plan(step: int) -> StepPlan:
    return StepPlan(step=step, learning_rate=1e-2 / (1 + step % 3), average_decay=0.8, seed=1000 + step)


@pytest.mark.parametrize("task", ["generate", "translate"])
def test_twenty_steps_agree_between_the_frameworks(task: Task) -> None:
    trainers = [trainer(framework, task, embedding_size=8) for framework in FRAMEWORKS]
    for step in range(20):
        results = [one.step(batch(task, step), plan(step)) for one in trainers]
        assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)
        assert abs(results[0].correct - results[1].correct) <= 1
    scores = [one.evaluate(batch(task, 99)) for one in trainers]
    assert scores[0].loss_sum == pytest.approx(scores[1].loss_sum, rel=1e-4)
    first, second = (one.weights() for one in trainers)
    for name in first:
        if not name.endswith("key.bias"):  # softmax cancels it: its gradient is rounding, which AdamW magnifies
            np.testing.assert_allclose(first[name], second[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_greedy_ids_are_the_likeliest_without_a_cache(framework: Framework) -> None:
    shape = config("translate", **{key: TINY[key] for key in ("norm", "positions", "gated_ffn", "num_kv_heads")})
    weights = initial_weights(shape, 5)
    one = make_text_trainer(shape, weights, TrainSettings(framework=framework, task="translate"), ONE)
    given = batch("translate", 1)
    assert given.source_ids is not None
    assert given.source_mask is not None
    found = one.write((given.source_ids, given.source_mask), np.full((8, 1), BOS_ID, np.int32))
    model = build_model(shape, weights)
    for index, row in enumerate(found):
        ids = [BOS_ID]
        ids_of_source, mask = (torch.from_numpy(x[index : index + 1]) for x in (given.source_ids, given.source_mask))
        while len(ids) <= shape.max_length:
            with torch.inference_mode():
                logits = model(ids_of_source, mask, torch.tensor([ids], dtype=torch.int32))
            following = int(logits[0, -1].argmax())
            if following == EOS_ID:
                break
            ids.append(following)
        assert ids[1:] == row


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_share_of_each_worker_adds_up_to_the_batch(framework: Framework) -> None:
    one, whole = trainer(framework, "translate"), batch("translate", 2)
    shares = [whole.share(rank, 3) for rank in range(3)]
    assert sum(share.predictions for share in shares) == whole.predictions
    total = sum(one.evaluate(share).loss_sum for share in shares)
    assert total == pytest.approx(one.evaluate(whole).loss_sum, rel=1e-6)
    assert whole.share(8, 9).predictions == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_interrupted_training_ends_as_if_it_was_not(
    framework: Framework, spec: Callable[[Task], DataSpec], tmp_path: Path
) -> None:
    settings, data = tiny("translate", framework=framework), spec("translate")
    whole = train(settings, data, tmp_path / "whole")
    assert train(settings, data, tmp_path / "parts", stop_after(13)).report is None
    assert state_path(tmp_path / "parts").is_dir()
    resumed = run_training(prepare_resumed(tmp_path / "parts", force=False), tmp_path / "parts")
    assert whole.report is not None
    assert resumed.report is not None
    first, second = (load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert all(first.weights[name].tobytes() == second.weights[name].tobytes() for name in first.weights)
    assert resumed.report.history == whole.report.history
    assert resumed.report.test == whole.report.test
    assert TrainingReport.model_validate(first.metrics) == whole.report
    assert isinstance(whole.report.test, TranslationMetrics)
    assert (first.labels, first.framework, first.processor.writes) == ((), framework, True)
    assert first.data is not None
    assert len(reload_corpus(first.data).test) == whole.report.test.examples


def test_it_learns_to_translate(spec: Callable[[Task], DataSpec], tmp_path: Path) -> None:
    outcome = train(tiny("translate", epochs=30, dropout=0.0), spec("translate"), tmp_path / "learned")
    assert outcome.report is not None
    test = outcome.report.test
    assert isinstance(test, TranslationMetrics)
    assert test.chrf > 60
    assert test.placeholder_accuracy is not None
    assert test.placeholder_accuracy > 0.9
    assert test.bits_per_byte < 1.0
    assert outcome.report.history[0].validation_bits_per_byte > 2 * test.bits_per_byte


def test_it_learns_to_generate(spec: Callable[[Task], DataSpec], tmp_path: Path) -> None:
    outcome = train(tiny("generate", epochs=10), spec("generate"), tmp_path / "learned")
    assert outcome.report is not None
    assert type(outcome.report.test) is GenerationMetrics
    assert outcome.report.test.bits_per_byte < 2.0
    assert outcome.report.history[0].validation_bits_per_byte > 3.0


def test_bits_per_byte_of_a_uniform_model_do_not_depend_on_how_texts_are_cut() -> None:
    processor = train_processor("byte", [], 0, max_length=12, writes=True)
    shape = config("generate", vocab_size=processor.vocab_size, tied_embeddings=False)
    weights = {**initial_weights(shape, 0), "head.weight": np.zeros((shape.vocab_size, 16), np.float32)}
    one = make_text_trainer(shape, weights, TrainSettings(task="generate"), ONE)
    pairs = [Pair(source="", target=text) for text in ("a" * 40, "schließen", "x")]
    found = score_texts(one, encode_pairs(pairs, processor, translate=False, training=False), len(pairs))
    size = 40 + 10 + 1
    assert (found.tokens, found.size_bytes) == (size + len(pairs), size)  # every byte once, and the ends
    assert found.bits_per_byte == pytest.approx(math.log2(260) * (size + 3) / size, rel=1e-6)


def test_pairs_that_are_too_long_are_left_out_of_training_and_cut_in_tests() -> None:
    processor = train_processor("byte", [], 0, max_length=12, writes=True)
    pairs = [Pair(source="a" * 30, target="b"), Pair(source="a", target="b" * 30), Pair(source="a", target="b")]
    training = encode_pairs(pairs, processor, translate=True, training=True)
    assert (len(training.targets), training.too_long) == (1, 2)
    testing = encode_pairs(pairs, processor, translate=True, training=False)
    assert [len(row) for row in testing.targets] == [3, 13, 3]
    assert testing.sources is not None
    assert [len(row) for row in testing.sources] == [12, 2, 2]
    assert testing.size_bytes == 1 + 12 + 1
    with pytest.raises(DataError, match="all 2 pairs are longer than --max-length 12"):
        encode_pairs(pairs[:2], processor, translate=True, training=True)


def test_translations_are_scored_as_sacrebleu_does_with_every_reference() -> None:
    scores = GenerationMetrics(examples=3, tokens=9, size_bytes=9, bits_per_byte=1.0, accuracy=0.5)
    perfect = [
        Translation(source="%(n)s file", references=("%(n)s Datei", "%(n)s Akte"), written="%(n)s Akte"),
        Translation(source="Save the open file now", references=("Die offene Datei jetzt speichern",), written="x"),
    ]
    found = translation_metrics(scores, perfect)
    assert (found.exact, found.placeholder_accuracy, found.with_placeholders, found.sources) == (0.5, 1.0, 1, 2)
    assert 0 < found.chrf < 60
    right = [one.model_copy(update={"written": one.references[-1]}) for one in perfect]
    best = translation_metrics(scores, right)
    assert (best.chrf, best.exact) == (pytest.approx(100), 1.0)
    assert best.bleu == pytest.approx(100)
    lost = right[0].model_copy(update={"written": "Akte"})
    assert translation_metrics(scores, [lost]).placeholder_accuracy == 0.0
    assert "version:2" in best.chrf_signature


def test_translations_do_not_depend_on_the_other_texts_of_their_batch() -> None:
    processor = train_processor("byte", [], 0, max_length=12, writes=True)
    shape = config("translate", vocab_size=processor.vocab_size)
    one = make_text_trainer(shape, initial_weights(shape, 1), TrainSettings(task="translate"), ONE)
    texts = ["Save", "Open the file", "", "Tür"]
    together = translate_texts(one, texts, processor)
    assert together == [translate_texts(one, [text], processor)[0] for text in texts]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "generate", "qat": "int8", "from_checkpoint": "x"}, "--qat is not for --task generate"),
        ({"task": "translate", "teacher": "x"}, "--teacher is not for --task translate"),
        ({"task": "translate", "from_checkpoint": "x"}, "--from is not for --task translate"),
        ({"task": "generate", "ngrams": 3}, "--ngrams is not for --task generate"),
        ({"task": "generate", "lowercase": True}, "--lowercase is not for --task generate"),
        ({"task": "generate", "tokenizer": "wordpiece"}, "--tokenizer wordpiece can't give a text back"),
        ({"task": "generate", "num_decoder_layers": 2}, "--num-decoder-layers is not for --task generate"),
        ({"task": "classify", "tied_embeddings": False}, "--tied-embeddings is not for --task classify"),
        ({"task": "classify", "num_decoder_layers": 2}, "--num-decoder-layers is not for --task classify"),
    ],
)
def test_options_of_other_tasks_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        make_settings(values)


def test_a_writer_is_refused_where_only_classifiers_go(spec: Callable[[Task], DataSpec], tmp_path: Path) -> None:
    train(tiny("generate", epochs=1), spec("generate"), tmp_path / "writer")
    checkpoint = load_checkpoint(tmp_path / "writer")
    with pytest.raises(RefusedError, match="takes classifiers only so far; writer was trained with --task generate"):
        build_program(checkpoint, "torch")
    with pytest.raises(RefusedError, match="--from takes classifiers only"):
        prepare_continued(make_settings({}), checkpoint, None, tmp_path / "further", force=False)
    (tmp_path / "writer" / "tokenizer.json").unlink()
    train_processor("byte", [], 0, max_length=12).save(tmp_path / "writer" / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"a model to generate needs a tokenizer with \[BOS\] and \[EOS\]"):
        load_checkpoint(tmp_path / "writer")
