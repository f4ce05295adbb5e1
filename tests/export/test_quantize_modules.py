"""Constants and operators of real files, of every target and route, find the module that they come from."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.export.quantize import coreml_weights, onnx_weights, tflite_weights
from edgekit.export.quantize.evidence import Floats, is_matrix
from edgekit.export.quantize.mixture import WEIGHTED
from edgekit.export.quantize.modules import Node, assign_nodes, match_weights, source_modules
from edgekit.export.quantize.nodes import onnx_nodes, tflite_nodes
from edgekit.program import Framework
from tests.export.routes import SIX, Routes
from tests.tiny import tiny_checkpoint

VARIANTS = {
    "rmsnorm-rotary-first-shared": {
        "norm": "rmsnorm",
        "positions": "rotary",
        "pooling": "first",
        "shared_layers": True,
        "activation": "relu",
    },
    "plain": {"num_layers": 1},
}


def read(target: str, path: Path) -> tuple[list[Node], dict[str, Floats]]:
    if target == "tflite":
        return tflite_nodes(path), tflite_weights.float_weights(path)
    return onnx_nodes(onnx.load(path)), onnx_weights.float_weights(path)


@pytest.mark.parametrize(("target", "framework"), SIX)
def test_every_matrix_finds_its_module(routes: Routes, target: str, framework: Framework) -> None:
    path, _ = routes.convert(target, framework)
    floats = coreml_weights.float_weights(path) if target == "coreml" else read(target, path)[1]
    owners = match_weights(routes.checkpoint.weights, floats)
    matrices = {name for name, values in floats.items() if is_matrix(values.shape)}
    assert matrices <= set(owners), "a matrix of no module"
    shapes = {name.rsplit(".", 1)[0]: values.shape for name, values in routes.checkpoint.weights.items()}
    weighted = {
        module for module, shape in shapes.items() if is_matrix(routes.checkpoint.weights[f"{module}.weight"].shape)
    }
    assert set(owners.values()) == weighted


@pytest.mark.parametrize(("target", "framework"), [cell for cell in SIX if cell[0] != "coreml"])
def test_every_operator_finds_its_module(routes: Routes, target: str, framework: Framework) -> None:
    nodes, floats = read(target, routes.convert(target, framework)[0])
    check_nodes(routes, nodes, assign_nodes(nodes, match_weights(routes.checkpoint.weights, floats)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_other_forms_of_the_model(tmp_path: Path, variant: str, target: str) -> None:
    options = {"hidden_size": 32, "ffn_size": 64} | VARIANTS[variant]
    made = Routes(folder=tmp_path, checkpoint=tiny_checkpoint(tmp_path, **options))
    nodes, floats = read(target, made.convert(target, "torch")[0])
    check_nodes(made, nodes, assign_nodes(nodes, match_weights(made.checkpoint.weights, floats)))


def check_nodes(routes: Routes, nodes: list[Node], found: dict[str, str]) -> None:
    config = routes.checkpoint.config
    kinds: dict[str, list[str]] = {}
    for node in nodes:
        kinds.setdefault(found.get(node.name, ""), []).append(node.kind)
    for module in source_modules(config):
        assert module in kinds, f"no operator of {module}: {sorted(kinds)}"
    times = config.num_layers // config.num_blocks
    for block in range(config.num_blocks):
        for product in ("scores", "heads"):
            of_product = kinds[f"blocks.{block}.attention.{product}"]
            assert sum(kind in ("BATCH_MATMUL", "MATMUL") for kind in of_product) == times
        assert kinds[f"blocks.{block}.attention.scores"].count("SOFTMAX") == times
        for weighted in (
            "attention.query",
            "attention.key",
            "attention.value",
            "attention.output",
            "ffn.up",
            "ffn.down",
        ):
            assert sum(kind in WEIGHTED for kind in kinds[f"blocks.{block}.{weighted}"]) == times
        for norm in ("attention_norm", "ffn_norm"):
            assert not set(kinds[f"blocks.{block}.{norm}"]) & WEIGHTED
    assert kinds.get("", []), "the mask and residual sums are of no module"
    assert not set(kinds[""]) & (WEIGHTED | {"SOFTMAX"})


def test_a_weight_with_a_norm_folded_into_it_is_known_and_another_is_not() -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(24, 16)).astype(np.float32)
    gamma = generator.normal(size=16).astype(np.float32)
    other = generator.normal(size=(24, 16)).astype(np.float32)
    weights = {"up.weight": weight, "down.weight": other[:, ::-1].copy()}
    constants = {"folded": (weight * gamma).T, "scaled": 0.25 * weight, "foreign": other, "bias": gamma}
    assert match_weights(weights, constants) == {"folded": "up", "scaled": "up"}
