"""TFLite files whose caches are written where they lie: the logits of the model without a cache, at every position."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.devices.runner import backend_litert_compiled
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.litert_states import updated_in_place
from edgekit.devices.runner.writer import Reading, Writer
from edgekit.export import to_tflite
from edgekit.export.quantize.tflite_cache import quantize_cache
from edgekit.export.tflite_edit import kind_of, make_operator
from edgekit.export.tflite_writer import serialize
from edgekit.model.config import TransformerConfig
from edgekit.program import Program
from edgekit.proof.writing import Prompt
from edgekit.sources import writers_torch
from edgekit.sources.writers import input_names, writer_signatures
from tests.model.writers import LLAMA, ONE_KEY, PLAIN, SIZES, InTorch, random_texts, random_weights

SEED = 2
CONFIGS = {
    "llama": TransformerConfig(**SIZES, task="generate", **LLAMA),
    "one-key": TransformerConfig(**{**SIZES, **ONE_KEY}, task="generate"),
    "translate": TransformerConfig(**SIZES, task="translate", **PLAIN),
}


@pytest.fixture(scope="module", params=CONFIGS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformerConfig, Path]:
    """A model, and its file."""
    config = CONFIGS[request.param]
    path = tmp_path_factory.mktemp("cached") / "model.tflite"
    signatures = writer_signatures(config, (4,) if config.task == "generate" else ())
    module = writers_torch.build_flat(config, random_weights(config, SEED), input_names(signatures))
    to_tflite.convert(Program(framework="torch", module=module, signatures=signatures), path)
    return config, path


def open_writer(path: Path) -> Writer:
    job = RunnerJob(runtime="litert-compiled", model=str(path), steps="", outputs="")
    return Writer(backend_litert_compiled.load(backend_litert_compiled.import_runtime("litert-compiled"), job))


def uncached_logits(config: TransformerConfig, source: Any, ids: Any) -> Any:
    """Logits [length, vocab] of one text, by the model without a cache."""
    return InTorch(config, random_weights(config, SEED)).logits(source, np.ones_like(source), ids)[0]


def texts_of(config: TransformerConfig) -> tuple[Any, tuple[int, ...], Any, Any]:
    """A source text and its ids, and two texts as long as the context."""
    source, mask, _ = random_texts(config, seed=7, rows=1)
    source = source[:, : mask[0].sum()]
    ids = np.random.default_rng(3).integers(4, config.vocab_size, (2, 1, config.max_length), np.int32)
    return source, tuple(map(int, source[0])) if config.task == "translate" else (), ids[0], ids[1]


def assert_alike(reading: Reading, expected: Any) -> None:
    bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
    assert float(np.abs(reading.logits - expected).max()) <= bound


@pytest.mark.parametrize("first", [1, 3, 5, 12])
def test_cached_logits_are_the_uncached_ones_at_every_position(
    written: tuple[TransformerConfig, Path], first: int
) -> None:
    config, path = written
    source, source_ids, ids, _ = texts_of(config)
    expected = uncached_logits(config, source, ids)
    writer = open_writer(path)
    reading = writer.read(ids[0, :first].tolist(), source_ids)
    for place in range(first, config.max_length):
        assert_alike(reading, expected[place - 1])
        reading = writer.go_on(int(ids[0, place]), reading)
    assert_alike(reading, expected[-1])


def test_a_state_that_several_texts_go_on_from_stays(written: tuple[TransformerConfig, Path]) -> None:
    config, path = written
    source, source_ids, ids, other = texts_of(config)
    branch = np.concatenate([ids[:, :5], other[:, 5:]], axis=1)
    expected, branched = uncached_logits(config, source, ids), uncached_logits(config, source, branch)
    writer = open_writer(path)
    begun = writer.read(ids[0, :5].tolist(), source_ids)
    first, second = writer.step(int(ids[0, 5]), begun), writer.step(int(branch[0, 5]), begun)
    for place in range(6, config.max_length):  # each goes on in its own buffers
        first, second = writer.go_on(int(ids[0, place]), first), writer.go_on(int(branch[0, place]), second)
        assert_alike(first, expected[place])
        assert_alike(second, branched[place])
    assert_alike(writer.go_on(int(ids[0, 5]), begun), expected[5])


def test_one_buffer_is_the_cache_before_and_after(written: tuple[TransformerConfig, Path], tmp_path: Path) -> None:
    config, path = written
    names = {"decode"} | ({"prefill_4"} if config.task == "generate" else set())
    assert updated_in_place(str(path)) == names
    writer = open_writer(path)
    _, source_ids, ids, _ = texts_of(config)
    reading = writer.read(ids[0, :5].tolist(), source_ids)
    after = writer.go_on(int(ids[0, 5]), reading)
    states = writer.session.states
    assert all(after.state[name] is reading.state[name] for name in states)
    values = 4 * config.max_length * config.kv_heads * config.head_dim
    assert writer.cache_bytes(after) == values * len(states)
    packed = tmp_path / "packed.tflite"
    quantize_cache(path, packed, [Prompt(ids=tuple(map(int, ids[0, :8])), source=source_ids)])
    assert updated_in_place(str(packed)) == names
    packed_writer = open_writer(packed)
    assert packed_writer.cache_bytes(packed_writer.read([1], source_ids)) == values * len(states) // 4


def test_a_cache_that_something_else_reads_is_not_written_to(
    written: tuple[TransformerConfig, Path], tmp_path: Path
) -> None:
    _, path = written
    model = flatbuffer_utils.read_model(str(path))
    definition = next(each for each in model.signatureDefs if each.signatureKey == b"decode")
    subgraph = model.subgraphs[definition.subgraphIndex]
    update = next(op for op in subgraph.operators if kind_of(model, op) == schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE)
    rows = int(update.inputs[1])
    subgraph.operators.append(make_operator(model, schema.BuiltinOperator.SHAPE, [int(update.inputs[0])], [rows]))
    changed = tmp_path / "model.tflite"
    changed.write_bytes(serialize(model))
    assert updated_in_place(str(changed)) == updated_in_place(str(path)) - {"decode"}


def test_no_product_reads_a_copy_of_the_cache(written: tuple[TransformerConfig, Path]) -> None:
    config, path = written
    model = flatbuffer_utils.read_model(str(path))
    definition = next(each for each in model.signatureDefs if each.signatureKey == b"decode")
    subgraph = model.subgraphs[definition.subgraphIndex]
    given = {int(index) for index in subgraph.outputs} | {int(index) for index in subgraph.inputs}
    products = [op for op in subgraph.operators if kind_of(model, op) == schema.BuiltinOperator.BATCH_MATMUL]
    if config.kv_heads > 1:  # the converter makes other products of one head
        assert len(products) == 2 * config.decoder_layers * (2 if config.task == "translate" else 1)
    assert all(int(product.inputs[1]) in given for product in products)
