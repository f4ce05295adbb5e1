import subprocess
import sys

import numpy as np
import pytest

from edgekit.errors import CheckpointError
from edgekit.model import keras as in_keras
from edgekit.model import pytorch as in_torch
from edgekit.model.sizes import named_config
from edgekit.model.weights import check_weights, initial_weights, parameter_shapes

CONFIG = named_config("nano", vocab_size=100, num_labels=4)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (initial_weights(CONFIG, seed) for seed in (1, 1, 2))
    check_weights(CONFIG, first)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert any(np.any(first[name] != other[name]) for name in first)
    assert {name: tensor.shape for name, tensor in first.items()} == parameter_shapes(CONFIG)


def test_initial_weights_have_the_deviations_they_promise() -> None:
    weights = initial_weights(named_config("mini", vocab_size=1000, num_labels=4), seed=0)
    assert weights["embed.tokens.weight"].std() == pytest.approx(256**-0.5, rel=0.02)
    assert weights["embed.positions.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.0.ffn.up.weight"].std() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert weights["blocks.0.ffn.down.weight"].std() == pytest.approx((2 / 1280 / 8) ** 0.5, rel=0.02)
    assert np.all(weights["blocks.3.ffn_norm.weight"] == 1)
    assert np.all(weights["blocks.3.ffn_norm.bias"] == 0)


def test_check_weights_names_a_missing_tensor() -> None:
    weights = initial_weights(CONFIG, seed=0)
    del weights["blocks.1.ffn.up.bias"]
    with pytest.raises(CheckpointError, match=r"lack the tensor 'blocks\.1\.ffn\.up\.bias'"):
        check_weights(CONFIG, weights)


def test_check_weights_names_an_unexpected_tensor() -> None:
    weights = initial_weights(CONFIG, seed=0) | {"pooler.weight": np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match=r"hold a tensor 'pooler\.weight'"):
        check_weights(CONFIG, weights)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("classifier.weight", lambda tensor: tensor.T, r"'classifier\.weight' has the shape \[128, 4\].* \[4, 128\]"),
        ("classifier.bias", lambda tensor: tensor.astype(np.float16), r"'classifier\.bias' is float16"),
        ("final_norm.bias", lambda tensor: tensor * np.nan, r"'final_norm\.bias' holds 128 NaN or infinite"),
        ("final_norm.weight", lambda tensor: tensor / 0, r"'final_norm\.weight' holds 128 NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_every_builder_names_a_broken_tensor(name: str, change: object, message: str) -> None:
    weights = initial_weights(CONFIG, seed=0)
    weights[name] = change(weights[name])  # type: ignore[operator]  # a parameter of the test
    for check in (check_weights, in_torch.build_encoder, in_keras.build_encoder):
        with pytest.raises(CheckpointError, match=message):
            check(CONFIG, weights)


def test_built_encoder_does_not_share_memory_with_the_weights_given() -> None:
    weights = initial_weights(CONFIG, seed=0)
    encoder = in_torch.build_encoder(CONFIG, weights)
    taken = in_torch.model_weights(encoder)
    weights["classifier.weight"][:] = 7
    taken["classifier.bias"][:] = 7
    assert encoder.classifier.weight.max().item() < 7
    assert encoder.classifier.bias.max().item() == 0


def _import_in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_config_sizes_and_weights_load_no_framework() -> None:
    code = "import edgekit.model.sizes, edgekit.model.weights\nprint({'torch', 'keras', 'tensorflow'} & {*sys.modules})"
    result = _import_in_a_process(code)
    assert (result.returncode, result.stdout) == (0, "set()\n"), result.stderr


def test_another_keras_backend_is_one_clear_error() -> None:
    result = _import_in_a_process("import edgekit.model.keras", KERAS_BACKEND="jax")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        "EdgekitError: Keras is set to the backend 'jax'; edgekit needs KERAS_BACKEND=tensorflow"
    )
