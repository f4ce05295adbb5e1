"""--ngrams: what tokens share, both frameworks alike, and nothing of it left in what is taken out."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from typer.testing import CliRunner

from edgekit.checkpoint import load_checkpoint
from edgekit.cli.main import app
from edgekit.errors import RefusedError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights, parameter_shapes
from edgekit.program import FRAMEWORKS, Framework
from edgekit.text.datasets import DataSpec
from edgekit.text.processor import SPECIAL_TOKENS, Processor, train_processor
from edgekit.train.batches import Batch, draw_batches
from edgekit.train.ngrams import GRAMS, TOKENS, NgramMatrix, initial_grams, ngram_matrix
from edgekit.train.settings import TrainSettings, make_settings
from edgekit.train.trainer import StepPlan, Trainer, make_trainer
from edgekit.train.training import prepare_resumed, prepare_training, run_training

Settings = Callable[..., TrainSettings]
IDS = np.array([[1, 4, 9, 17, 0], [1, 30, 49, 0, 0]], np.int32)
MASK = (IDS > 0).astype(np.int32)


def processor_of(tokens: list[str], *, word_pieces: bool) -> Processor:
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *tokens])}
    if word_pieces:
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.enable_truncation(8)
    return Processor(tokenizer)


def dense(matrix: NgramMatrix) -> np.ndarray:
    found = np.zeros(matrix.shape, np.float32)
    found[matrix.rows, matrix.columns] = matrix.values
    return found


def test_what_tokens_share() -> None:
    # é is two bytes: Ã©. Texts: "a", " a", "aé", "aab", "x"
    processor = processor_of(["a", "Ġa", "aÃ©", "aab", "x"], word_pieces=False)
    assert processor.token_texts() == ["", "", "", "a", " a", "aé", "aab", "x"]
    alone = ngram_matrix(processor, 1)
    assert alone is not None  # of " ", "a", "é", "b" and "x" only "a" is in two tokens; twice in the last of them
    expected = np.array([[0, 0, 0, 1, 1, 1, 2 / math.sqrt(2), 0]], np.float32).T
    np.testing.assert_allclose(dense(alone), expected, rtol=1e-6)
    longer = ngram_matrix(processor_of(["ab", "Ġab", "b"], word_pieces=False), 3)
    assert longer is not None  # columns a, b, ab: " ", " a" and " ab" are in one token alone
    third = 1 / math.sqrt(3)
    np.testing.assert_allclose(dense(longer)[3:], np.array([[third] * 3, [third] * 3, [0, 1, 0]]), rtol=1e-6)
    np.testing.assert_array_equal(longer.row_starts, [0, 0, 0, 0, 3, 6, 7])
    np.testing.assert_array_equal(dense(longer.transposed()), dense(longer).T)
    assert np.all(np.diff(longer.transposed().rows) >= 0)


def test_word_pieces_share_without_their_mark() -> None:
    processor = processor_of(["un", "##un", "#"], word_pieces=True)
    assert processor.token_texts()[3:] == ["un", "un", "#"]
    matrix = ngram_matrix(processor, 2)
    assert matrix is not None
    assert matrix.shape == (6, 3)
    np.testing.assert_array_equal(dense(matrix)[3], dense(matrix)[4])
    assert not dense(matrix)[5].any()


def test_nothing_to_share() -> None:
    processor = processor_of(["a", "b"], word_pieces=False)
    assert ngram_matrix(processor, 3) is None
    assert ngram_matrix(train_processor("bpe", ["to be or not to be"] * 3, 262), 0) is None


def test_a_trained_tokenizer_always_gives_the_same_structure(tmp_path: Path) -> None:
    processor = train_processor("bpe", ["der die das", "den dem des", "dies dieser"] * 3, 280)
    processor.save(tmp_path / "tokenizer.json")
    first, again = ngram_matrix(processor, 3), ngram_matrix(Processor.load(tmp_path / "tokenizer.json"), 3)
    assert first is not None
    assert again is not None
    assert first.shape == again.shape
    for name in ("rows", "columns", "values"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    squares = np.bincount(first.rows, first.values**2, processor.vocab_size)
    assert not squares[:3].any()
    assert np.all((squares == 0) | (squares > 0.999))
    grams = initial_grams(first, 4, seed=5)
    assert grams.shape == (first.shape[1], 4)
    np.testing.assert_array_equal(grams, initial_grams(again, 4, seed=5))
    assert not np.array_equal(grams, initial_grams(first, 4, seed=6))


def config() -> TransformerConfig:
    sizes = {"max_length": 12, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "num_layers": 2, "embedding_size": 8}
    return TransformerConfig.model_validate({"vocab_size": 50, "num_labels": 5, **sizes})


def structure() -> NgramMatrix:
    """What 47 made-up tokens of the letters a to d share."""
    words = [first + second + third for first in "abcd" for second in "abcd" for third in "abcd"][:47]
    matrix = ngram_matrix(processor_of(words, word_pieces=False), 3)
    assert matrix is not None
    return matrix


def trainer(framework: Framework, ngrams: NgramMatrix | None, dropout: float = 0.0) -> Trainer:
    settings = TrainSettings(framework=framework, ngrams=3, dropout=dropout, clip_norm=0.5, weight_decay=0.1, seed=3)
    shape = config().model_copy(update={"dropout": dropout})
    return make_trainer(shape, initial_weights(shape, 3), settings, ngrams)


def batches(count: int) -> Iterator[Batch]:
    generator = np.random.default_rng(7)
    rows = [[1, *generator.integers(3, 50, generator.integers(0, 11)).tolist()] for _ in range(8 * count)]
    return draw_batches(rows, generator.integers(0, 5, len(rows)).astype(np.int32), 8, generator)


def plan(step: int) -> StepPlan:
    return StepPlan(step=step, learning_rate=1e-2 / (1 + step % 3), average_decay=0.8, seed=1000 + step)


def test_twenty_steps_agree_between_the_frameworks() -> None:
    ngrams, plain = structure(), trainer("torch", None)
    trainers = [trainer(framework, ngrams) for framework in FRAMEWORKS]
    apart = 0.0
    for step, batch in enumerate(batches(20)):
        losses = [one.step(batch, plan(step)).loss for one in (*trainers, plain)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-3)
        apart = max(apart, abs(losses[0] - losses[2]))
    assert apart > 1e-2  # it does change the training
    first, second = (one.weights() for one in trainers)
    np.testing.assert_allclose(first[TOKENS], second[TOKENS], atol=1e-3)
    states = [one.state() for one in trainers]
    np.testing.assert_allclose(states[0][f"model/{GRAMS}"], states[1][f"model/{GRAMS}"], atol=1e-3)
    moved = states[0][f"model/{GRAMS}"] - initial_grams(ngrams, 8, 3)
    assert np.abs(moved).max() > 0.05


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weights_taken_out_have_the_sum_folded_in(framework: Framework) -> None:
    ngrams = structure()
    one = trainer(framework, ngrams)
    for step, batch in enumerate(batches(3)):
        one.step(batch, plan(step))
    state, weights = one.state(), one.weights()
    table = state[f"average/{TOKENS}"].astype(np.float64) + dense(ngrams) @ state[f"average/{GRAMS}"]
    np.testing.assert_allclose(weights[TOKENS], table, atol=1e-6)
    assert {name: tensor.shape for name, tensor in weights.items()} == parameter_shapes(config())
    plain = make_trainer(config(), weights, TrainSettings(framework=framework))
    np.testing.assert_allclose(plain.logits(IDS, MASK), one.logits(IDS, MASK), atol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_state_continues_bit_for_bit(framework: Framework) -> None:
    whole, again = trainer(framework, structure(), 0.2), trainer(framework, structure(), 0.2)
    for step, batch in enumerate(batches(8)):
        if step == 4:
            again.load_state(whole.state())
        if step >= 4:
            again.step(batch, plan(step))
        whole.step(batch, plan(step))
    for name, tensor in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], tensor, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_off_is_as_if_it_did_not_exist(framework: Framework) -> None:
    """A matrix of zeros adds nothing to the table: every weight then moves as without --ngrams."""
    zeros = replace(structure(), values=np.zeros_like(structure().values))
    off, nothing = trainer(framework, None, 0.2), trainer(framework, zeros, 0.2)
    for step, batch in enumerate(batches(5)):
        assert off.step(batch, plan(step)).loss == pytest.approx(nothing.step(batch, plan(step)).loss, abs=1e-5)
    assert not any(GRAMS in name for name in off.state())
    for name, tensor in off.weights().items():
        if not name.endswith("key.bias"):  # softmax cancels it: its gradient is rounding, which AdamW magnifies
            np.testing.assert_allclose(nothing.weights()[name], tensor, atol=1e-4, err_msg=name)


def test_a_whole_training_with_ngrams(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    """Its checkpoint is like any other, scores as it was validated, and is the same after an interruption."""
    settings = small_settings(tokenizer="bpe", vocab_size=300, ngrams=3, epochs=2)
    outcome = run_training(prepare_training(settings, spec, tmp_path / "whole", force=False), tmp_path / "whole")
    taken = iter(range(100))  # 6 steps an epoch
    parts = tmp_path / "parts"
    run_training(prepare_training(settings, spec, parts, force=False), parts, should_stop=lambda: next(taken) == 7)
    run_training(prepare_resumed(parts, force=False), parts)
    files = [folder / "model.safetensors" for folder in (tmp_path / "whole", parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    off = small_settings(tokenizer="bpe", vocab_size=300, epochs=2)
    run_training(prepare_training(off, spec, tmp_path / "off", force=False), tmp_path / "off")
    assert (tmp_path / "off" / "model.safetensors").stat().st_size == files[0].stat().st_size
    assert (tmp_path / "off" / "model.safetensors").read_bytes() != files[0].read_bytes()
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert metrics["settings"]["ngrams"] == 3
    assert outcome.report is not None
    checkpoint = load_checkpoint(tmp_path / "whole")
    assert {name: tensor.shape for name, tensor in checkpoint.weights.items()} == parameter_shapes(checkpoint.config)


def test_the_option() -> None:
    with pytest.raises(RefusedError, match="--ngrams -1"):
        make_settings({"ngrams": -1})
    with pytest.raises(RefusedError, match=r"--ngrams.*byte"):
        make_settings({"ngrams": 3, "tokenizer": "byte"})
    assert CliRunner().invoke(app, ["train", "--ngrams=-1"]).exit_code == 2
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}).stdout
    assert "--ngrams" in shown
    assert "share" in shown
