"""Writes a Llama as GGUF, with the `gguf` package: run in llama.cpp's environment, a job as JSON on standard input."""

import json
import sys

import gguf
import numpy as np


def main() -> None:
    """Quantize the matrices and write the file; norms stay float32."""
    job = json.load(sys.stdin)
    config, kind = job["config"], getattr(gguf.GGMLQuantizationType, job["scheme"])
    writer = gguf.GGUFWriter(job["output"], "llama")
    writer.add_context_length(config["max_length"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_layers"])
    writer.add_feed_forward_length(config["ffn_size"])
    writer.add_head_count(config["num_heads"])
    writer.add_head_count_kv(config["kv_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config["norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    with np.load(job["arrays"]) as arrays:
        for name, value in ((name, arrays[name]) for name in arrays.files):
            if value.ndim == 1:
                writer.add_tensor(name, value)
            else:
                writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
