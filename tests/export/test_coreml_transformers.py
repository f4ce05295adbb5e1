"""Small random models of transformers, captured in both ways: they convert, and the package answers as PyTorch does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.export.coreml_torch import Capture, convert_torch_module
from edgekit.mil.evaluator import load_evaluator

pytestmark = pytest.mark.slow
LENGTH = 12
BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
DISTILBERT = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 8,
    "max_source_positions": 20,
}
VIT = {k: v for k, v in BERT.items() if k.startswith(("hidden", "num", "inter"))} | {"image_size": 32, "patch_size": 8}


class Asks(nn.Module):
    """Calls a model with named inputs and gives its first output."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *args: Tensor) -> Tensor:
        output: Tensor = self.model(**dict(zip(self.names, args, strict=True)), return_dict=True)[0]
        return output


def text() -> dict[str, Tensor]:
    mask = (torch.arange(LENGTH) < 9).to(torch.int32)[None]
    return {"input_ids": 3 + torch.arange(LENGTH, dtype=torch.int32)[None] * mask, "attention_mask": mask}


def ids() -> dict[str, Tensor]:
    return {"input_ids": 3 + torch.arange(LENGTH, dtype=torch.int32)[None]}


def pair() -> dict[str, Tensor]:
    return text() | {"decoder_input_ids": torch.arange(5, dtype=torch.int32)[None]}


#: name → (class, configuration, its fields, inputs)
MODELS: dict[str, tuple[str, str, dict[str, Any], Callable[[], dict[str, Tensor]]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", BERT, text),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", BERT, text),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", DISTILBERT, text),
    "electra": ("ElectraForSequenceClassification", "ElectraConfig", BERT | {"embedding_size": 16}, text),
    "mobilebert": (
        "MobileBertForSequenceClassification",
        "MobileBertConfig",
        BERT | {"embedding_size": 32, "intra_bottleneck_size": 32},
        text,
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"use_cache": False}, ids),
    "llama": ("LlamaForCausalLM", "LlamaConfig", BERT | {"num_key_value_heads": 1, "use_cache": False}, ids),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5 | {"use_cache": False}, pair),
    "whisper": ("WhisperEncoder", "WhisperConfig", WHISPER, lambda: {"input_features": torch.randn(1, 8, 40)}),
    "vit": ("ViTForImageClassification", "ViTConfig", VIT, lambda: {"pixel_values": torch.randn(1, 3, 32, 32)}),
}


@pytest.mark.parametrize("capture", ["export", "trace"])
@pytest.mark.parametrize("name", MODELS)
def test_it_converts_and_answers_alike(name: str, capture: Capture, tmp_path: Path) -> None:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    kind, config, fields, make = MODELS[name]
    torch.manual_seed(0)
    model = {"WhisperEncoder": WhisperEncoder}.get(kind) or getattr(transformers, kind)
    inputs = make()
    module = Asks(model(getattr(transformers, config)(**fields)), tuple(inputs)).eval()
    converted = convert_torch_module(module, inputs, output_names=["output"], captures=(capture,))
    converted.save(str(tmp_path / "model.mlpackage"))
    with torch.no_grad():
        wanted = module(*inputs.values()).numpy()
    evaluator = load_evaluator(tmp_path / "model.mlpackage", precision="fp32")
    produced = evaluator.run({key: value.numpy() for key, value in inputs.items()})["output"]
    assert np.abs(produced - wanted).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max()))
    assert float(np.ptp(wanted)) > 1e-4  # the answers tell something
