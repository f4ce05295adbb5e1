"""The model that all of `generation.py`'s candidates run: Llama's shape, 15.7 M random weights, in each tool's format.

edgekit's checkpoint comes first; transformers' folder has the same weights by Llama's names, and what every peer's own
exporter makes is made of that folder, or (GGUF) of the same arrays.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray
from peers_candidates import WORK as PEERS

from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights
from edgekit.text.corpora import load_corpus
from edgekit.text.datasets import DataSpec
from edgekit.text.processor import train_processor

WORK = tables.WORK / "generation"
NAME, CONTEXT, VOCAB = "llama-15m", 256, 8192
CONFIG: dict[str, Any] = {
    "task": "generate",
    "vocab_size": VOCAB,
    "max_length": CONTEXT,
    "hidden_size": 384,
    "num_layers": 8,
    "num_heads": 6,
    "num_kv_heads": 2,
    "ffn_size": 1024,
    "norm": "rmsnorm",
    "activation": "silu",
    "gated_ffn": True,
    "linear_bias": False,
    "positions": "rotary",
}
LANGUAGES = ("en", "de", "fr", "ru", "es", "it", "pl", "cs", "nl", "sv", "fi", "tr", "pt", "uk", "el", "ja", "ko", "hu")
#: fresh weights make every block a whisper, and the model repeats its last token
LOUDER = 2.0
_LLAMA = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
_GGUF = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
}


def make_checkpoint() -> Checkpoint:
    """Return edgekit's checkpoint, made if it is not there; its tokenizer learned from the interface strings."""
    path = WORK / NAME
    if not path.is_dir():
        corpus = load_corpus(DataSpec(source="ui-strings", task="generate", languages=LANGUAGES))
        config = TransformerConfig.model_validate(CONFIG)
        texts = [pair.target for pair in corpus.train]
        processor = train_processor("bpe", texts, VOCAB, max_length=CONTEXT, writes=True)
        if processor.vocab_size != VOCAB:
            raise SystemExit(f"the texts give a vocabulary of {processor.vocab_size}, not {VOCAB}")
        weights = {
            name: np.float32(1 if value.ndim == 1 or "embed" in name else LOUDER) * value
            for name, value in initial_weights(config, 0).items()
        }
        made = Checkpoint(
            path=path,
            name=NAME,
            framework="torch",
            config=config,
            weights=weights,
            processor=processor,
            labels=(),
            data=corpus.record,
            metrics=None,
        )
        save_checkpoint(made, path)
    return load_checkpoint(path)


def make_hub_folder(checkpoint: Checkpoint) -> Path:
    """Return transformers' folder of the same model."""
    path = WORK / "hf"
    if (path / "config.json").is_file():
        return path
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = checkpoint.config
    shape = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ffn_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_length,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(shape)
    weights = {name: torch.from_numpy(value) for name, value in llama_weights(checkpoint).items()}
    missing = model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) > {"lm_head.weight"}:
        raise SystemExit(f"the weights do not fit Llama: {missing}")
    model.tie_weights()
    model.save_pretrained(path)
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    tokenizer.no_truncation()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(path)
    return path


def llama_weights(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """Return the weights by Llama's names."""
    found = {
        "model.embed_tokens.weight": checkpoint.weights["embed.tokens.weight"],
        "model.norm.weight": checkpoint.weights["final_norm.weight"],
    }
    for index in range(checkpoint.config.num_layers):
        for ours, theirs in _LLAMA.items():
            found[f"model.layers.{index}.{theirs}.weight"] = checkpoint.weights[f"blocks.{index}.{ours}.weight"]
    return found


def write_gguf(checkpoint: Checkpoint, scheme: str) -> Path:
    """Return a GGUF file, written by the `gguf` package in llama.cpp's environment: F32, Q8_0 or Q4_0."""
    path = WORK / f"{scheme.lower()}.gguf"
    if not path.is_file():
        arrays = WORK / "gguf.npz"
        np.savez(arrays, **_gguf_weights(checkpoint))  # type: ignore[arg-type]  # numpy's stub takes no dict of arrays
        config = checkpoint.config
        job = {
            "arrays": str(arrays),
            "output": str(path),
            "scheme": scheme,
            "config": config.model_dump(mode="json") | {"kv_heads": config.kv_heads, "head_dim": config.head_dim},
        }
        _run([PEERS / "llama-cpp" / "bin" / "python", Path(__file__).parent / "generation_gguf.py"], json.dumps(job))
    return path


def _gguf_weights(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    config, weights = checkpoint.config, checkpoint.weights
    found = {
        "token_embd.weight": weights["embed.tokens.weight"],
        "output_norm.weight": weights["final_norm.weight"],
    }
    for index in range(config.num_layers):
        for ours, theirs in _GGUF.items():
            value = weights[f"blocks.{index}.{ours}.weight"]
            if ours in ("attention.query", "attention.key"):
                value = _interleaved(value, config.head_dim)
            found[f"blk.{index}.{theirs}.weight"] = value
    return found


def _interleaved(weight: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rows in the order of llama.cpp's rotation, which turns neighbours where Llama's turns the two halves."""
    heads = weight.shape[0] // head_dim
    halves = weight.reshape(heads, 2, head_dim // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def build_genai(hub: Path, precision: str, threads: int) -> Path:
    """Return the folder that onnxruntime-genai's own builder makes, for so many threads."""
    path = WORK / f"genai-{precision}"
    if not (path / "genai_config.json").is_file():
        shutil.rmtree(path, ignore_errors=True)
        python = PEERS / "onnxruntime-genai" / "bin" / "python"
        builder = [
            python,
            "-m",
            "onnxruntime_genai.models.builder",
            "-i",
            hub,
            "-o",
            path,
            "-p",
            precision,
            "-e",
            "cpu",
        ]
        _run([*builder, "-c", WORK / "genai-cache"])
    config = json.loads((path / "genai_config.json").read_text())
    options = config["model"]["decoder"]["session_options"]
    options |= {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    (path / "genai_config.json").write_text(json.dumps(config, indent=1))
    return path


def build_litertlm(hub: Path, recipe: str) -> Path:
    """Return the .litertlm file that litert-torch's exporter of Hugging Face models makes; "" is float32."""
    output = WORK / f"litertlm-{recipe or 'float32'}"
    if not list(output.glob("*.litertlm")):
        shutil.rmtree(output, ignore_errors=True)
        options = {"prefill_lengths": [8, 32, 128], "cache_length": CONTEXT, "quantization_recipe": recipe}
        call = f"export(model={str(hub)!r}, output_dir={str(output)!r}, **{options!r})"
        _run([sys.executable, "-c", f"from litert_torch.generative.export_hf.export import export; {call}"])
    return next(iter(output.glob("*.litertlm")))


def _run(argv: list[Any], stdin: str = "") -> None:
    """Run a command; raises RuntimeError with its last line where it fails."""
    run = subprocess.run(list(map(str, argv)), input=stdin, capture_output=True, text=True, check=False)
    if run.returncode:
        lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else f"exit code {run.returncode}")
