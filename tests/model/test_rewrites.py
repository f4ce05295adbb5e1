"""Rewrites in both frameworks: the same answers, in another form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import RefusedError, UnknownNameError
from edgekit.model.config import TransformerConfig
from edgekit.model.rewrites import (
    REWRITES,
    added_tolerance,
    find_rewrites,
    refuse_rewrite,
    rewrite_signature,
)
from edgekit.model.weights import Weights, initial_weights
from edgekit.program import Framework, Signature, TensorSpec
from tests.tiny import loud_checkpoint

ALONE = [(name,) for name in REWRITES]
TOGETHER = [tuple(name for name in REWRITES if name != left_out) for left_out in ("split-heads", "fused-heads")]
CONFIGS: dict[str, dict[str, Any]] = {
    "layernorm": {},
    "rotary, rmsnorm": {"positions": "rotary", "norm": "rmsnorm", "pooling": "first"},
}


def config_of(**overrides: Any) -> TransformerConfig:
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 32, "max_length": 10}
    return TransformerConfig(vocab_size=30, num_labels=3, **(sizes | overrides))


def logits(
    framework: Framework,
    config: TransformerConfig,
    weights: Weights,
    rewrites: tuple[str, ...] = (),
    dtype: Any = None,
) -> np.ndarray:
    """Logits of texts of every length, with what is rewritten rewritten."""
    generator = np.random.default_rng(0)
    mask = np.tril(np.ones((config.max_length, config.max_length), np.int32))
    ids = generator.integers(3, config.vocab_size, mask.shape).astype(np.int32) * mask
    given = mask.astype(np.float32)[:, None, None, :] if "float-mask" in rewrites else mask
    if framework == "torch":
        import torch

        from edgekit.model.pytorch import build_encoder
        from edgekit.model.rewrites_pytorch import rewrite_encoder

        module = rewrite_encoder(build_encoder(config, weights), rewrites).to(dtype or torch.float32)
        with torch.inference_mode():
            return module(torch.from_numpy(ids), torch.from_numpy(given)).float().numpy()
    from edgekit.model import keras, rewrites_keras

    built = rewrites_keras.rewrite_encoder(keras.build_encoder(config, weights), rewrites)
    return np.asarray(built((ids, given), training=False))


@pytest.mark.parametrize("shape", CONFIGS)
@pytest.mark.parametrize("rewrites", [*ALONE, *TOGETHER], ids="+".join)
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_rewritten_model_answers_as_before(framework: Framework, rewrites: tuple[str, ...], shape: str) -> None:
    config = config_of(**CONFIGS[shape])
    weights = {name: 2 * value for name, value in initial_weights(config, 1).items()}
    before = logits("torch", config, weights)
    after = logits(framework, config, weights, rewrites)
    difference = float(np.max(np.abs(after - before)) / max(1.0, float(np.max(np.abs(before)))))
    assert difference <= 1e-5 + added_tolerance(rewrites)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_gelu_by_tanh_is_another_function(framework: Framework) -> None:
    config = config_of()
    weights = {name: 2 * value for name, value in initial_weights(config, 1).items()}
    change = logits(framework, config, weights, ("gelu-tanh",)) - logits(framework, config, weights)
    assert float(np.max(np.abs(change))) > 1e-5


def test_safe_norms_and_masks_hold_in_float16(tmp_path: Path) -> None:
    """PyTorch computes in float16 on a CPU too: without the rewrites a loud model answers nonsense, with them right."""
    import torch

    loud = loud_checkpoint(tmp_path)
    before = logits("torch", loud.config, loud.weights)

    def difference(*rewrites: str) -> float:
        after = logits("torch", loud.config, loud.weights, rewrites, dtype=torch.float16)
        return float(
            np.max(np.abs(np.nan_to_num(after, nan=np.inf) - before)) / max(1.0, float(np.max(np.abs(before))))
        )

    assert difference() > 0.1
    assert difference("fp16-norm", "fp16-mask") < 0.02


def test_names_are_checked_before_any_framework() -> None:
    assert find_rewrites(["fp16-norm", "gelu-tanh", "fp16-norm"]) == ("gelu-tanh", "fp16-norm")
    with pytest.raises(UnknownNameError, match="did you mean gelu-tanh"):
        find_rewrites(["gelu-tan"])
    with pytest.raises(RefusedError, match="exclude each other"):
        find_rewrites(["fused-heads", "split-heads"])
    with pytest.raises(RefusedError, match="ids are int32 in every file"):
        find_rewrites(["int32-ids"])


def test_what_has_no_use_is_refused_by_name() -> None:
    assert "activation is relu" in str(refuse_rewrite(("gelu-tanh",), config_of(activation="relu"), recipe=False))
    assert "a recipe names" in str(refuse_rewrite(("split-heads",), config_of(), recipe=True))
    assert refuse_rewrite(("split-heads", "gelu-tanh"), config_of(), recipe=False) is None


def test_a_float_mask_is_in_the_signature() -> None:
    ids, mask = (TensorSpec(name=name, dtype="int32", shape=(1, 8)) for name in ("ids", "mask"))
    given = Signature(name="serving_default", method="forward", inputs=(ids, mask), outputs=())
    assert rewrite_signature(given, ("fp16-norm",)) is given
    changed = rewrite_signature(given, ("float-mask",))
    assert changed.inputs == (ids, TensorSpec(name="mask", dtype="float32", shape=(1, 1, 1, 8)))
