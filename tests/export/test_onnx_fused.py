"""Files whose attention is one operator of ONNX Runtime give the logits of their model, wherever texts begin."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit.devices.runner.backend import import_runtime, load_backend
from edgekit.devices.runner.generation import Generation, Prompt, write
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.session_onnxruntime import IN_PLACE, InPlaceSession, OnnxSession
from edgekit.devices.runner.writer import Writer
from edgekit.export import to_onnx
from edgekit.export.onnx_simplified import simplify_writer
from edgekit.export.quantize import for_onnx
from edgekit.export.quantize.mixture import Mixture
from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_pytorch import Cache
from edgekit.sources.hub_writers import HubDecoder, build_hub_writer
from edgekit.sources.writers_onnx import growing_signatures
from tests.export.writers import SEED, file_texts, source_texts, write_file
from tests.model.test_hub_writers import build
from tests.model.writers import LLAMA, ONE_KEY, OPTIONS, SIZES, InTorch, random_weights

#: heads of 16, which the operator takes
WIDE: dict[str, Any] = {**SIZES, "hidden_size": 64}
BIASED = {**LLAMA, "linear_bias": True}
CONFIGS = [TransformerConfig(**WIDE, task="generate", **options) for options in (*OPTIONS[:3], BIASED)]
#: [batch, past + n]: texts of one length, padded to the left, to the right, and in between
MASKS = {
    "whole": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]],
    "inside": [[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 0]],
}


def _id(config: TransformerConfig) -> str:
    return "-".join(f"{name}={value}" for name, value in dict(config).items() if name in {*LLAMA, *ONE_KEY})


@pytest.fixture(scope="module", params=CONFIGS, ids=_id)
def growing(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformerConfig, Path]:
    return request.param, write_file(request.param, "growing", tmp_path_factory.mktemp("growing"))


def _operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_attention_is_one_operator_of_one_product(growing: tuple[TransformerConfig, Path]) -> None:
    config, path = growing
    found = _operators(path)
    assert found["GroupQueryAttention"] == config.num_layers
    assert not found["Softmax"] + found["Neg"]
    assert not found["RotaryEmbedding"]
    assert found["Split"] == (config.num_layers if config.gated_ffn else 0)  # of gates and values
    assert found["MatMul"] + found["Gemm"] <= 4 * config.num_layers + 3
    joined = 2 * config.num_layers if config.norm == "rmsnorm" else 0
    assert found["SkipSimplifiedLayerNormalization"] == joined
    assert {entry.key for entry in onnx.load(path).metadata_props} == {IN_PLACE}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_logits_are_the_models_at_each_position(growing: tuple[TransformerConfig, Path], mask: list[list[int]]) -> None:
    """Of texts read at once, and token by token after two; padding is no token of any other.

    Rotations are by the places in the cache, which are as far apart as the tokens of a text that nothing parts.
    """
    config, path = growing
    present = np.array(mask, np.int64)
    ids = np.random.default_rng(7).integers(1, config.vocab_size, present.shape)
    places = np.maximum(present.cumsum(1) - 1, 0)
    if config.positions == "rotary" and mask is MASKS["inside"]:
        places = np.arange(present.shape[1])[None].repeat(len(present), axis=0)
    for chunks in ([6], [4, 1, 1]):
        wanted = _by_model(config, ids, present, places, chunks)
        found = _by_file(config, path, ids, present, places, chunks)
        shown = present.astype(bool)
        np.testing.assert_allclose(found[shown], wanted[shown], rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_one_text_is_read_in_chunks(growing: tuple[TransformerConfig, Path]) -> None:
    config, path = growing
    ids = np.random.default_rng(8).integers(1, config.vocab_size, (1, 9))
    given = (ids, np.ones_like(ids), np.arange(9)[None])
    for chunks in ([3, 5, 1], [1, 4, 4]):
        wanted = _by_model(config, *given, [9])
        np.testing.assert_allclose(
            _by_file(config, path, *given, chunks), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max()
        )


def _by_model(config: TransformerConfig, ids: Any, mask: Any, places: Any, chunks: list[int]) -> Any:
    model = InTorch(config, random_weights(config, SEED)).model
    return _called(model.grown, model.no_cache(len(ids)), ids, mask, places, chunks)


def _called(call: Callable[..., Any], cache: Cache, ids: Any, mask: Any, places: Any, chunks: list[int]) -> Any:
    """The logits of texts that are read in chunks by a model of PyTorch."""
    found, begin = [], 0
    with torch.inference_mode():
        for count in chunks:
            end = begin + count
            given = (ids[:, begin:end], mask[:, :end], places[:, begin:end])
            logits, cache = call(*map(torch.from_numpy, given), cache)
            found.append(logits.numpy())
            begin = end
    return np.concatenate(found, axis=1)


def _by_file(config: TransformerConfig, path: Path, ids: Any, mask: Any, places: Any, chunks: list[int]) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    empty = np.zeros((len(ids), config.kv_heads, 0, config.head_dim), np.float32)
    cache = {name.replace("present", "past_key_values"): empty for name in names[1:]}
    found, begin = [], 0
    for count in chunks:
        end = begin + count
        given = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end], "position_ids": places[:, begin:end]}
        logits, *present = session.run(names, given | cache)
        cache = dict(zip(cache, present, strict=True))
        assert all(value.shape[2] == end for value in present)
        found.append(logits)
        begin = end
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("form", ["growing", "fixed"])
@pytest.mark.parametrize("config", CONFIGS[1:3], ids=_id)
def test_texts_that_share_a_beginning_share_no_cache(config: TransformerConfig, form: str, tmp_path: Path) -> None:
    """The buffers of a cache are written in place, but never those that another text still reads."""
    path = write_file(config, form, tmp_path)
    writer, copying = _writer(path, InPlaceSession), _writer(path, InPlaceSession)
    copying.session = OnnxSession(copying.session.backend, onnxruntime, copying.session.backend._sessions)
    first, other = writer.read([1, 5, 7]), copying.read([1, 5, 7])
    for tokens in ([9, 3, 4], [9, 6, 2], [8, 3, 4]):
        reading, wanted = first, other
        for token in tokens:
            reading, wanted = writer.step(token, reading), copying.step(token, wanted)
            np.testing.assert_allclose(reading.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    prompt = Prompt((1, 5, 7))
    for beams in (1, 3):
        generation = Generation(max_new_tokens=8, num_beams=beams)
        assert write(writer, prompt, generation).ids == write(copying, prompt, generation).ids


def _writer(path: Path, kind: type, context: int = 12) -> Writer:
    job = RunnerJob(runtime="onnxruntime", model=str(path))
    writer = Writer(load_backend(import_runtime(job), job), context)
    assert isinstance(writer.session, kind)
    return writer


def test_a_long_text_outgrows_its_buffers(tmp_path: Path) -> None:
    config = TransformerConfig(**{**WIDE, "max_length": 150, "num_layers": 1}, task="generate", **LLAMA)
    path = write_file(config, "growing", tmp_path)
    writer = _writer(path, InPlaceSession, 150)
    ids = np.random.default_rng(2).integers(1, config.vocab_size, 140).tolist()
    reading = writer.read(ids[:20])
    sizes = {writer.cache_bytes(reading)}
    for token in ids[20:]:
        reading = writer.step(token, reading)
        sizes.add(writer.cache_bytes(reading))
    np.testing.assert_allclose(reading.logits, writer.read(ids).logits, rtol=1e-4, atol=1e-4)
    assert len(sizes) == 3
    assert max(sizes) <= 2 * 256 * config.kv_heads * config.head_dim * 4


@pytest.mark.parametrize("form", ["growing", "fixed"])
@pytest.mark.parametrize("options", [{}, LLAMA], ids=["plain", "llama"])
def test_translations_are_the_models(form: str, options: dict[str, Any], tmp_path: Path) -> None:
    config = TransformerConfig(**WIDE, task="translate", **options)
    path = write_file(config, form, tmp_path)
    assert _operators(path / "decoder_with_past_model.onnx")["GroupQueryAttention"] == config.num_layers
    assert file_texts(config, path) == source_texts(config)


def test_heads_that_do_not_fit_stay_written_out(tmp_path: Path) -> None:
    config = TransformerConfig(**{**WIDE, "num_heads": 16}, task="generate", **LLAMA)
    path = write_file(config, "growing", tmp_path)
    assert not _operators(path)["GroupQueryAttention"]
    assert not onnx.load(path).metadata_props
    assert file_texts(config, path) == source_texts(config)


def test_a_file_in_float16_writes(tmp_path: Path) -> None:
    path = write_file(CONFIGS[1], "growing", tmp_path, scheme="fp16")
    texts = file_texts(CONFIGS[1], path)
    assert sum(a == b for a, b in zip(texts, source_texts(CONFIGS[1]), strict=True)) >= 3


@pytest.mark.parametrize(("scheme", "bits"), [("int8-dynamic", 8), ("int4-weight", 4)])
def test_products_of_one_token_read_weights_in_blocks(scheme: str, bits: int, tmp_path: Path) -> None:
    """And round what they read, which `int8-dynamic` promises."""
    source, output = write_file(CONFIGS[1], "growing", tmp_path), tmp_path / "quantized.onnx"
    evidence = for_onnx.compress(source, output, Mixture(scheme=scheme), None)
    assert evidence is not None
    assert evidence.quantized_elements > 0.9 * evidence.matrix_elements
    products = [node for node in onnx.load(output).graph.node if "MatMul" in node.op_type]
    told = [{a.name: a.i for a in node.attribute} for node in products]
    assert {(each["bits"], each["accuracy_level"]) for each in told} == {(bits, 4)}
    assert isinstance(_writer(output, InPlaceSession).session, InPlaceSession)


def test_a_norm_of_another_kind_stays() -> None:
    """A sum of which a norm by the first power is taken, or whose sides differ in shape, is no norm that is known."""
    path_nodes = [
        onnx.helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        onnx.helper.make_node("Add", ["x", "x"], ["total"]),
        onnx.helper.make_node("Pow", ["total", "three"], ["power"]),
        onnx.helper.make_node("ReduceMean", ["power", "axis"], ["mean"], keepdims=1),
        onnx.helper.make_node("Add", ["mean", "eps"], ["shifted"]),
        onnx.helper.make_node("Sqrt", ["shifted"], ["root"]),
        onnx.helper.make_node("Reciprocal", ["root"], ["inverse"]),
        onnx.helper.make_node("Mul", ["total", "inverse"], ["normed"]),
        onnx.helper.make_node("Mul", ["normed", "weight"], ["y"]),
    ]
    values = {
        "table": np.ones((5, 4), np.float32), "three": np.float32(3), "axis": np.array([-1]), "eps": np.float32(1e-5),
        "weight": np.ones(4, np.float32),
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        path_nodes,
        "norm",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["b", "n", 4])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    simplify_writer(model)
    kinds = [node.op_type for node in model.graph.node]
    assert "SkipSimplifiedLayerNormalization" not in kinds
    assert kinds.count("Div") == 1
    values["three"] = np.float32(2)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values[tensor.name]), tensor.name))
    simplify_writer(model)
    assert [node.op_type for node in model.graph.node] == ["Gather", "SkipSimplifiedLayerNormalization"]


@pytest.mark.parametrize(("name", "attentions"), [("llama", 2), ("qwen3", 2), ("gpt2", 2), ("gemma3", 0)])
def test_decoders_of_hugging_face_keep_their_logits(name: str, attentions: int, tmp_path: Path) -> None:
    """Where a layer sees the newest tokens alone, or its scores have a cap, attention stays written out."""
    model = build(name)
    program = build_hub_writer(model, "generate", 12)
    shape: Any = program.module.model.config
    path = tmp_path / "model.onnx"
    to_onnx.convert(replace(program, signatures=growing_signatures(shape)), path)
    assert _operators(path)["GroupQueryAttention"] == attentions
    assert model.config._attn_implementation == "eager"
    mask = np.array(MASKS["left"], np.int64)
    ids = np.random.default_rng(7).integers(3, shape.vocab_size, mask.shape)
    given = (ids, mask, np.maximum(mask.cumsum(1) - 1, 0), [4, 1, 1])
    empty = torch.zeros((2, shape.kv_heads, 0, shape.head_dim))
    cache = tuple((empty, empty) for _ in range(shape.decoder_layers))
    wanted = _called(HubDecoder(model, shape).grown, cache, *given)
    shown = mask.astype(bool)
    np.testing.assert_allclose(
        _by_file(shape, path, *given)[shown], wanted[shown], rtol=1e-5, atol=1e-5 * np.abs(wanted).max()
    )
