"""The models of coreml_zoo.py: small ones of random weights, built from transformers' own classes, no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.export.coreml_torch import convert_torch_module
from edgekit.mil.evaluator import Evaluator

LENGTH, VOCABULARY = 24, 512
_TEXT = {"vocab_size": VOCABULARY, "initializer_range": 0.1}
_BERT = _TEXT | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a model is made: its name for people, what builds its module and its inputs; states are float16."""

    title: str
    build: Callable[[], tuple[nn.Module, dict[str, Tensor]]]
    has_states: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """A module in eval mode and inputs for it, by name."""

    module: nn.Module
    inputs: Mapping[str, Tensor]

    def reference(self) -> NDArray[Any]:
        """PyTorch's own output."""
        with torch.no_grad():
            return self.module(*self.inputs.values()).numpy()

    def convert(self, precision: Any) -> Any:
        """The module as a Core ML model for iOS 17."""
        return convert_torch_module(self.module, self.inputs, output_names=["output"], precision=precision)

    def inputs_for_packages(self) -> dict[str, NDArray[Any]]:
        """The inputs as packages take them."""
        return {name: value.numpy().astype(_dtype(value)) for name, value in self.inputs.items()}

    def evaluated(self, evaluator: Evaluator) -> NDArray[Any]:
        """The output of a package that was made of it."""
        return evaluator.run(self.inputs_for_packages())["output"]


class Calls(nn.Module):
    """A module called as a function of plain tensors, which gives one."""

    def __init__(self, model: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the function."""
        return self.call(self.model, *inputs)


def build(name: str) -> Model:
    """The model of this name, the same every time."""
    torch.manual_seed(0)
    module, inputs = MODELS[name].build()
    if MODELS[name].has_states:
        from zoo_cache import SLOTS, CachedModel

        return CachedModel(module=module.eval(), inputs={"ids": inputs["ids"][:, :SLOTS]})
    return Model(module=module.eval(), inputs=inputs)


def build_full_size() -> Model:
    """BERT-base at 128 tokens, of random weights."""
    import transformers

    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
    return Model(module=Calls(bert, _encode).eval(), inputs=_ids_and_mask(128, 30522))


def _dtype(value: Tensor) -> Any:
    return np.float32 if value.dtype.is_floating_point else np.int32


def _ids_and_mask(length: int = LENGTH, vocabulary: int = VOCABULARY) -> dict[str, Tensor]:
    """Random tokens, the last five of them padding."""
    mask = torch.ones(1, length, dtype=torch.int32)
    mask[:, -5:] = 0
    return {"ids": torch.randint(3, vocabulary, (1, length), dtype=torch.int32), "mask": mask}


def _encode(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=mask).last_hidden_state


def _encoder(name: str, options: dict[str, Any]) -> Callable[[], tuple[nn.Module, dict[str, Tensor]]]:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        import transformers

        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options))
        return Calls(model, _encode), _ids_and_mask()

    return make


def _decoder(name: str, options: dict[str, Any]) -> Callable[[], tuple[nn.Module, dict[str, Tensor]]]:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        import transformers

        config = getattr(transformers, name.replace("LMHeadModel", "").replace("ForCausalLM", "") + "Config")(**options)
        model = getattr(transformers, name)(config)
        ids = _ids_and_mask()["ids"]
        return Calls(model, lambda model, ids: model(input_ids=ids, use_cache=False).logits), {"ids": ids}

    return make


def _t5() -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config)
    inputs = _ids_and_mask() | {"decoder_ids": torch.randint(3, VOCABULARY, (1, 7), dtype=torch.int32)}

    def call(model: Any, ids: Tensor, mask: Tensor, decoder_ids: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False).logits

    return Calls(model, call), inputs


def _whisper() -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    config = transformers.WhisperConfig(
        num_mel_bins=16, d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128,
        max_source_positions=32, init_std=0.1, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
    return Calls(model, lambda model, x: model(x).last_hidden_state), {"features": torch.randn(1, 16, 64)}


def _vit() -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    options = {key: value for key, value in _BERT.items() if key not in ("vocab_size", "max_position_embeddings")}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **options)
    model = transformers.ViTModel(config, add_pooling_layer=False)
    return Calls(model, lambda model, x: model(pixel_values=x).last_hidden_state), {"pixels": torch.randn(1, 3, 32, 32)}


_DISTIL = _TEXT | {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 64}
_MOBILE = _BERT | {"embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 2}
_GPT2 = _TEXT | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
_LLAMA = _decoder("LlamaForCausalLM", _BERT | {"num_key_value_heads": 2})
MODELS = {
    "bert": Kind(title="BERT", build=_encoder("Bert", _BERT)),
    "roberta": Kind(title="RoBERTa", build=_encoder("Roberta", _BERT)),
    "distilbert": Kind(title="DistilBERT", build=_encoder("DistilBert", _DISTIL)),
    "electra": Kind(title="ELECTRA", build=_encoder("Electra", _BERT | {"embedding_size": 32})),
    "mobilebert": Kind(title="MobileBERT", build=_encoder("MobileBert", _MOBILE)),
    "gpt2": Kind(title="GPT-2", build=_decoder("GPT2LMHeadModel", _GPT2)),
    "llama": Kind(title="Llama", build=_LLAMA),
    "llama-cache": Kind(title="Llama, cache in states", build=_LLAMA, has_states=True),
    "t5": Kind(title="T5", build=_t5),
    "whisper": Kind(title="Whisper, encoder", build=_whisper),
    "vit": Kind(title="ViT", build=_vit),
}
