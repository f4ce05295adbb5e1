"""The model of coreml_zoo.py that keeps something between calls: Llama, a token at a time, its cache in states."""

from dataclasses import dataclass
from typing import Any

import coremltools as ct
import numpy as np
import torch
import zoo_models
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.cache_utils import Cache

from edgekit.export.coreml_workarounds import workarounds
from edgekit.mil.evaluator import Evaluator

SLOTS = 16
_STATES = ("keys", "values")


class Slots(Cache):
    """transformers' interface to keys and values in one tensor each: [layers, 1, heads, slots, width]."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        self.keys, self.values, self.place, self.layers = keys, values, place, []

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new key and value to their slot, and give all."""
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer] = torch.where(self.place, new.to(kept.dtype), kept[layer])
        return self.keys[layer].to(key.dtype), self.values[layer].to(value.dtype)

    def get_seq_length(self, *_: Any) -> int:
        """Nothing is shifted: places are given."""
        return 0


class OneToken(nn.Module):
    """Llama for one token at a place, with its cache in buffers, which become states."""

    def __init__(self, llama: Any) -> None:
        super().__init__()
        self.llama, config = llama, llama.config
        width = config.hidden_size // config.num_attention_heads
        for name in _STATES:
            shape = (config.num_hidden_layers, 1, config.num_key_value_heads, SLOTS, width)
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        """ids [1, 1], position [1] → logits [1, 1, vocabulary]."""
        slots = torch.arange(SLOTS)
        cache = Slots(self.keys, self.values, (slots == position).reshape(1, 1, SLOTS, 1))
        mask = torch.where(slots <= position, 0.0, -1e4).reshape(1, 1, 1, SLOTS)
        places = position.reshape(1, 1)
        return self.llama(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        ).logits


@dataclass(frozen=True, kw_only=True)
class CachedModel(zoo_models.Model):
    """The Llama of the zoo: PyTorch sees the whole text at once, the package a token at a time."""

    def convert(self, precision: Any) -> Any:
        """A trace for iOS 18, the first with states, which are float16."""
        step = OneToken(self.module.model).eval()
        example = self.inputs["ids"][:, :1], torch.zeros(1, dtype=torch.int32)
        with torch.no_grad(), workarounds("torch"):
            traced = torch.jit.trace(step, example, check_trace=False, strict=False)
            for name in _STATES:
                getattr(step, name).zero_()  # what the trace left
            return ct.convert(
                traced,
                inputs=[
                    ct.TensorType(name="ids", shape=(1, 1), dtype=np.int32),
                    ct.TensorType(name="position", shape=(1,), dtype=np.int32),
                ],
                outputs=[ct.TensorType(name="output", dtype=np.float32)],
                states=[
                    ct.StateType(
                        wrapped_type=ct.TensorType(shape=getattr(step, name).shape, dtype=np.float16), name=name
                    )
                    for name in _STATES
                ],
                compute_precision=ct.precision.FLOAT16 if precision == "fp16" else ct.precision.FLOAT32,
                minimum_deployment_target=ct.target.iOS18,
                skip_model_load=True,
            )

    def evaluated(self, evaluator: Evaluator) -> NDArray[Any]:
        """The logits of all tokens, one call for each."""
        evaluator.reset_states()
        ids = self.inputs["ids"].numpy()
        calls = ({"ids": ids[:, i : i + 1], "position": np.array([i], np.int32)} for i in range(ids.shape[1]))
        return np.concatenate([evaluator.run(inputs)["output"] for inputs in calls], axis=1)
