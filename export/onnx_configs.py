"""What runtimes of ONNX read beside a model that writes: config.json of Optimum, genai_config.json of its like."""

import json
from pathlib import Path
from typing import Any

from edgekit.checkpoint import Checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.sources.writers_onnx import IN_PLACE
from edgekit.text.processor import BOS_ID, EOS_ID

CONFIG, GENAI_CONFIG = "config.json", "genai_config.json"


def write_onnx_configs(folder: Path, model: str, checkpoint: Checkpoint) -> None:
    """Write what other runtimes need to load the file or folder `model` of a bundle with a cache that grows.

    - generate: both configurations in the bundle, which is then a model folder of either runtime.
    - translate: config.json in the folder of graphs, which is one of Optimum's.
    """
    config = checkpoint.config
    if config.task == "translate":
        _write(folder / model / CONFIG, optimum_config(config))
    else:
        _write(folder / CONFIG, optimum_config(config))
        _write(folder / GENAI_CONFIG, genai_config(config, model, in_place=_keeps_in_place(folder / model)))


def optimum_config(config: TransformerConfig) -> dict[str, Any]:
    """A configuration of transformers with the sizes that Optimum's runtime reads; the graph is edgekit's own.

    `model_type` names an architecture with the same tensors between calls.
    """
    common = {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_length,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": config.pad_id,
    }
    if config.task == "translate":
        sizes = {"d_model": config.hidden_size, "decoder_start_token_id": BOS_ID, "forced_eos_token_id": None}
        for side, layers in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
            sizes |= {f"{side}_layers": layers, f"{side}_attention_heads": config.num_heads}
            sizes |= {f"{side}_ffn_dim": config.ffn_size}
        named = {"model_type": "marian", "architectures": ["MarianMTModel"], "is_encoder_decoder": True}
        return named | common | sizes
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        **common,
    }


def _keeps_in_place(path: Path) -> bool:
    """Whether the file says that its cache may be one buffer before and after a call."""
    import onnx

    return any(entry.key == IN_PLACE for entry in onnx.load(path, load_external_data=False).metadata_props)


def genai_config(config: TransformerConfig, model: str, *, in_place: bool) -> dict[str, Any]:
    """The configuration of onnxruntime-genai for a decoder in the file `model`, whose cache may stay `in_place`."""
    inputs = {name: name for name in ("input_ids", "attention_mask", "position_ids")}
    outputs = {"logits": "logits"}
    for part in ("key", "value"):
        inputs[f"past_{part}_names"] = f"past_key_values.%d.{part}"
        outputs[f"present_{part}_names"] = f"present.%d.{part}"
    decoder = {
        "session_options": {"provider_options": []},
        "filename": model,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.kv_heads,
        "inputs": inputs,
        "outputs": outputs,
    }
    return {
        "model": {
            "type": "llama",
            "vocab_size": config.vocab_size,
            "context_length": config.max_length,
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": config.pad_id,
            "decoder": decoder,
        },
        "search": {"max_length": config.max_length, "do_sample": False, "past_present_share_buffer": in_place},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
