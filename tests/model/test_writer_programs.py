"""Programs of models that write: their signatures, and flat steps that give what the model gives for whole texts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.checkpoint import Checkpoint
from edgekit.errors import CheckpointError, RefusedError
from edgekit.export.operations import program_runner
from edgekit.model.config import TransformerConfig
from edgekit.program import FRAMEWORKS, Framework, Program, Signature
from edgekit.sources.writers import build_writer_program, default_prefill_lengths, writer_signatures
from edgekit.text.processor import train_processor
from tests.model.writers import CONFIGS, InTorch, name_of, random_texts, random_weights
from tests.tiny import tiny_checkpoint


def _checkpoint(config: TransformerConfig) -> Checkpoint:
    return Checkpoint(
        path=Path("nowhere"),
        name="tiny",
        framework="torch",
        config=config,
        weights=random_weights(config, seed=3),
        processor=train_processor("byte", (), 259, max_length=config.max_length, writes=True),
        labels=(),
        data=None,
        metrics=None,
    )


def _zeros(signature: Signature) -> dict[str, NDArray[Any]]:
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in signature.inputs}


def _named(program: Program) -> dict[str, Signature]:
    return {signature.name: signature for signature in program.signatures}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("config", [c for c in CONFIGS if c.task == "generate"], ids=name_of)
def test_prefill_and_decode_give_the_logits_of_the_whole_text(config: TransformerConfig, framework: Framework) -> None:
    program = build_writer_program(_checkpoint(config), framework, prefill_lengths=(4, 8))
    run, signatures = program_runner(program), _named(program)
    assert list(signatures) == ["prefill_4", "prefill_8", "decode"]
    source, mask, ids = random_texts(config, seed=5, rows=1)
    expected = InTorch(config, random_weights(config, seed=3)).logits(source, mask, ids)
    values = _zeros(signatures["prefill_4"])
    for name, start, count in (("prefill_4", 0, 4), ("prefill_8", 4, 3)):  # the second one padded to the right
        chunk = np.full((1, signatures[name].inputs[0].shape[1]), 7, np.int32)
        chunk[:, :count] = ids[:, start : start + count]
        values |= {"ids": chunk, "position": np.array([start], np.int32)}
        out = run(name, values)
        values |= {into: out[name] for into, name in signatures[name].states.items()}
    for place in range(7, config.max_length):
        values |= {"ids": ids[:, place : place + 1], "position": np.array([place], np.int32)}
        out = run("decode", values)
        values |= {into: out[name] for into, name in signatures["decode"].states.items()}
        np.testing.assert_allclose(out["logits"][0, 0], expected[0, place], atol=2e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("config", [c for c in CONFIGS if c.task == "translate"], ids=name_of)
def test_encode_and_decode_give_the_logits_of_the_whole_text(config: TransformerConfig, framework: Framework) -> None:
    program = build_writer_program(_checkpoint(config), framework)
    run, signatures = program_runner(program), _named(program)
    assert list(signatures) == ["encode", "decode"]
    source, mask, ids = random_texts(config, seed=5, rows=1)
    expected = InTorch(config, random_weights(config, seed=3)).logits(source, mask, ids)
    given = _zeros(signatures["encode"])
    given["source_ids"][:, :9], given["source_mask"][:, :9] = source, mask
    encoded, decode = run("encode", given), signatures["decode"]
    values = _zeros(decode) | {"source_mask": given["source_mask"]}
    values |= {into: encoded[name] for into, name in decode.given.items()}
    assert set(values) == {*decode.states, *decode.given, "ids", "position", "source_mask"}
    for place in range(config.max_length):
        values |= {"ids": ids[:, place : place + 1], "position": np.array([place], np.int32)}
        out = run("decode", values)
        values |= {into: out[name] for into, name in decode.states.items()}
        np.testing.assert_allclose(out["logits"][0, 0], expected[0, place], atol=2e-5)


def test_default_prefill_lengths_fit_the_context() -> None:
    assert default_prefill_lengths(6) == (6,)
    assert default_prefill_lengths(64) == (8, 32)
    assert default_prefill_lengths(512) == (8, 32, 128)


def test_what_can_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="tiny was trained with --task classify"):
        build_writer_program(tiny_checkpoint(tmp_path), "torch")
    short = CONFIGS[0].model_copy(update={"max_length": 1})
    with pytest.raises(CheckpointError, match="tiny reads 1 token in all: to write takes at least 2"):
        build_writer_program(replace(_checkpoint(CONFIGS[0]), config=short), "torch")


def test_each_output_that_goes_on_has_the_shape_of_its_input() -> None:
    for config in CONFIGS:
        for signature in writer_signatures(config):
            inputs = {spec.name: spec for spec in signature.inputs}
            outputs = {spec.name: spec for spec in signature.outputs}
            for into, out in signature.states.items():
                assert inputs[into].shape == outputs[out].shape
