"""What the converters start from: torch.export's graph and TensorFlow's frozen one answer like the model."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekit.model import keras as in_keras
from edgekit.model import pytorch as in_torch
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import named_config
from edgekit.model.weights import initial_weights

import tensorflow as tf  # isort: skip - edgekit.model.keras chooses the backend first
from tensorflow.python.framework.convert_to_constants import (  # isort: skip
    convert_variables_to_constants_v2,
)

CONFIGS = [
    named_config("nano", vocab_size=60, num_labels=5, dropout=0.1),
    named_config(
        "nano", vocab_size=60, num_labels=5, norm="rmsnorm", positions="rotary", pooling="first", shared_layers=True
    ),
]


def _inputs(rows: int, length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    generator = np.random.default_rng(length)
    mask = (np.arange(length) < generator.integers(1, length + 1, (rows, 1))).astype(np.int32)
    return generator.integers(0, 60, (rows, length)).astype(np.int32), mask


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.positions)
def test_torch_export_gives_equal_outputs_at_every_shape(config: TransformerConfig) -> None:
    encoder = in_torch.build_encoder(config, initial_weights(config, seed=0))
    shape = {0: torch.export.Dim("batch", min=1, max=256), 1: torch.export.Dim("length", min=1, max=config.max_length)}
    example = tuple(torch.from_numpy(array) for array in _inputs(3, 9))
    program = torch.export.export(encoder, example, dynamic_shapes=(shape, shape))
    assert set(program.state_dict) == set(in_torch.model_weights(encoder))
    for rows, length in ((1, 1), (3, 9), (5, config.max_length)):
        ids, mask = (torch.from_numpy(array) for array in _inputs(rows, length))
        torch.testing.assert_close(program.module()(ids, mask), encoder(ids, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.positions)
def test_frozen_tensorflow_graph_gives_equal_outputs_at_every_shape(config: TransformerConfig) -> None:
    encoder = in_keras.build_encoder(config, initial_weights(config, seed=0))
    spec = tf.TensorSpec((None, None), tf.int32)
    concrete = tf.function(lambda ids, mask: encoder((ids, mask))).get_concrete_function(spec, spec)
    frozen = convert_variables_to_constants_v2(concrete)
    assert not frozen.variables
    for rows, length in ((1, 1), (3, 9), (5, config.max_length)):
        ids, mask = _inputs(rows, length)
        expected = encoder((ids, mask)).numpy()
        (logits,) = frozen(tf.constant(ids), tf.constant(mask))
        bound = 1e-5 * max(1.0, float(np.abs(expected).max()))  # TensorFlow fuses operators of a graph
        np.testing.assert_allclose(logits, expected, rtol=0, atol=bound)
