"""Models that write, as files of ONNX and Core ML, write what the model writes, token for token."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.bundle import README, TOKENIZER
from edgekit.devices.runner.backend import import_runtime, load_backend
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.session import open_session
from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.describe import describe_file
from edgekit.export.plan import PlannedExport, plan_exports
from edgekit.export.quantize import for_coreml, for_onnx
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.snippets import python_snippet, write_snippets
from edgekit.model.config import TransformerConfig
from edgekit.proof.writing import Prompt, WritingSettings, run_here, write_texts
from edgekit.text.processor import BOS_ID, EOS_ID, train_processor
from tests.devices.writers import writer_config
from tests.export.writers import file_texts, form_signatures, prompts, source_texts, write_file
from tests.model.writers import CONFIGS

GENERATE, TRANSLATE = CONFIGS[1], CONFIGS[-1]
FILES_OF = [
    pytest.param(GENERATE, "growing", id="onnx-generate-growing"),
    pytest.param(GENERATE, "fixed", id="onnx-generate-fixed"),
    pytest.param(TRANSLATE, "growing", id="onnx-translate-growing"),
    pytest.param(GENERATE, "stateful", id="coreml-generate-states"),
    pytest.param(GENERATE, "passed", id="coreml-generate-inputs"),
    pytest.param(TRANSLATE, "stateful", id="coreml-translate-states"),
    pytest.param(TRANSLATE, "passed", id="coreml-translate-inputs"),
]


@pytest.mark.parametrize(("config", "form"), FILES_OF)
def test_a_file_writes_the_tokens_of_its_model(config: TransformerConfig, form: str, tmp_path: Path) -> None:
    path = write_file(config, form, tmp_path)
    assert file_texts(config, path) == source_texts(config)


@pytest.mark.parametrize("config", [GENERATE, TRANSLATE], ids=["generate", "translate"])
def test_core_ml_through_tensorflow_passes_the_cache(config: TransformerConfig, tmp_path: Path) -> None:
    path = write_file(config, "passed", tmp_path, framework="tensorflow")
    assert file_texts(config, path) == source_texts(config)


def test_through_tensorflow_core_ml_keeps_no_states() -> None:
    def plan(**options: str) -> PlannedExport:
        via, coreml = ["tensorflow"], CoremlOptions.model_validate(options)
        (found,) = plan_exports("writer", GENERATE, targets=["coreml"], via=via, coreml=coreml)
        return found

    assert (plan().problem, plan().stateful) == (None, False)
    refused = str(plan(minimum_deployment_target="iOS18").problem)
    assert "makes states, which packages for iOS18 keep the cache in, of PyTorch's buffers alone: leave out" in refused
    assert "say --minimum-deployment-target iOS17" in refused


@pytest.mark.parametrize(("task", "form"), [("generate", "growing"), ("generate", "fixed"), ("translate", "growing")])
def test_the_python_beside_an_onnx_file_writes_as_the_runner_does(task: str, form: str, tmp_path: Path) -> None:
    config = writer_config(task)
    path = write_file(config, form, tmp_path)
    processor = train_processor("byte", (), config.vocab_size, max_length=config.max_length, writes=True)
    processor.save(tmp_path / TOKENIZER)
    write_snippets(tmp_path, task, config.task, "onnx", form_signatures(config, form))
    command = [sys.executable, "-P", "-c", python_snippet(tmp_path)]
    readme = (tmp_path / README).read_text()
    assert all(line.startswith("```") for line in readme.splitlines() if "```" in line)
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    (ids,) = processor.encode(["Save" if task == "generate" else "Delete selected items"])
    prompt = Prompt(ids=tuple(ids)) if task == "generate" else Prompt(ids=(BOS_ID,), source=tuple(ids))
    settings = WritingSettings(max_new_tokens=64, stop_ids=(EOS_ID,), context=config.max_length)
    (text,) = write_texts(run_here(path, "onnxruntime"), [prompt], settings)
    assert len(text.ids) > 1
    assert shown == processor.decode(text.ids) + "\n"


def test_the_first_cache_of_onnx_runtime_is_its_own(tmp_path: Path) -> None:
    """Not the memory of an array that is gone when the first call reads it."""
    path = write_file(GENERATE, "fixed", tmp_path)
    job = RunnerJob(runtime="onnxruntime", model=str(path))
    session = open_session(load_backend(import_runtime(job), job))
    array = np.zeros((1, 2, 3, 4), np.float32)
    value = session.from_numpy("", array)
    array += 1
    assert not value.numpy().any()
    assert value.numpy().shape == array.shape


def test_two_packages_are_quantized_each(tmp_path: Path) -> None:
    """Before iOS 18 a translator is two packages, each with weights of its own."""
    config = writer_config("translate")
    source, output = write_file(config, "passed", tmp_path), tmp_path / "quantized.mlpackage"
    evidence = for_coreml.compress(source, output, Mixture(scheme="int8-weight"), None)
    assert evidence is not None
    assert evidence.quantized_elements > 0.9 * evidence.matrix_elements
    assert {signature.name for signature in describe_file(output).signatures} == {"encode", "decode"}
    assert len(file_texts(config, output)) == len(prompts(config))
    assert {package.name for package in output.iterdir()} == {"encode.mlpackage", "decode.mlpackage"}


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int4-weight"])
def test_a_tied_head_is_quantized_and_rotations_are_not(scheme: str, tmp_path: Path) -> None:
    """The scores of tokens are an integer product, and no table is unpacked for it; sines and cosines keep float32."""
    config = next(config for config in CONFIGS if config.tied_embeddings and config.positions == "rotary")
    source, output = write_file(config, "growing", tmp_path), tmp_path / "quantized.onnx"
    for_onnx.compress(source, output, Mixture(scheme=scheme), None)
    graph = onnx.load(output).graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert products, "attention's own products stay"
    assert not [node.name for node in products if node.input[1] in constants]
    made = {name: node.op_type for node in graph.node for name in node.output}
    unpacked = {made.get(node.input[0]) for node in graph.node if node.op_type == "Transpose"}
    assert "DequantizeLinear" not in unpacked
    rotations = {name: kind for name, kind in constants.items() if "rotary_" in name}
    assert len(rotations) == 2
    assert set(rotations.values()) == {onnx.TensorProto.FLOAT}
