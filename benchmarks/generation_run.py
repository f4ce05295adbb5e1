"""Writes with one peer, in the peer's environment: a job as JSON on standard input, what it took as the last line.

{"peer", "path", "threads", "prompt", "tokens", "texts"}: write `tokens` tokens after `prompt`, so many times after two
to warm up. Told are the ids, ms to the first token and between the others of each text, and the peak of memory above
the imported runtime.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from runner_memory import watch_memory

_WARMUP_TEXTS = 2


class Transformers:
    """`generate` of transformers, told of each token by its streamer."""

    def __init__(self, path: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._load = lambda: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def load(self) -> None:
        """Load the folder."""
        self._model = self._load()

    def write(self, prompt: list[int], tokens: int) -> Iterator[int]:
        """Run generate, whose streamer notes the time of each token."""
        times: list[float] = []

        class Streamer:
            def put(self, value: Any) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                """Nothing is left."""

        with self._torch.inference_mode():
            found = self._model.generate(
                self._torch.tensor([prompt]),
                attention_mask=self._torch.ones((1, len(prompt)), dtype=self._torch.int64),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                streamer=Streamer(),
            )
        self.times = times[1:]  # the first is of the prompt
        yield from found[0, len(prompt) :].tolist()


class Genai:
    """onnxruntime-genai's generator; its threads are in genai_config.json."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime_genai

        self._module, self._path = onnxruntime_genai, path

    def load(self) -> None:
        """Load the folder."""
        self._model = self._module.Model(self._path)

    def write(self, prompt: list[int], tokens: int) -> Iterator[int]:
        """Append the prompt, then one token after the other."""
        options = self._module.GeneratorParams(self._model)
        options.set_search_options(max_length=len(prompt) + tokens, min_length=len(prompt) + tokens, do_sample=False)
        generator = self._module.Generator(self._model, options)
        generator.append_tokens(np.array([prompt], np.int32))
        for _ in range(tokens):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])


class LlamaCpp:
    """llama.cpp by its own C interface: `llama_decode`, and the largest of its logits where they are."""

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self._llama, self._path, self._threads = llama_cpp, path, threads

    def load(self) -> None:
        """Load the file and make a context."""
        llama = self._llama
        llama.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model = llama.llama_model_load_from_file(self._path.encode(), llama.llama_model_default_params())
        options = llama.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_threads, options.n_threads_batch = (
            256,
            256,
            self._threads,
            self._threads,
        )
        self._context = llama.llama_init_from_model(model, options)
        self._vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def write(self, prompt: list[int], tokens: int) -> Iterator[int]:
        """Decode the prompt as one batch, then one token after the other."""
        llama, ids = self._llama, prompt
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        for _ in range(tokens):
            array = (llama.llama_token * len(ids))(*ids)  # the batch only points to it
            batch = llama.llama_batch_get_one(array, len(ids))
            if llama.llama_decode(self._context, batch):
                raise RuntimeError("llama_decode failed")
            logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, -1), (self._vocab,))
            ids = [int(logits.argmax())]
            yield ids[0]


class LitertLm:
    """LiteRT-LM's own benchmark, which takes numbers of tokens and tells rates; it tells no ids."""

    def __init__(self, path: str, threads: int) -> None:
        import litert_lm

        litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
        self._module, self._path, self._threads = litert_lm, path, threads

    def load(self) -> None:
        """The benchmark loads the file each time."""

    def measure(self, prompt: int, tokens: int) -> tuple[float, list[float]]:
        """Run it once: ms to the first token, and the mean between the others for each of them."""
        backend = self._module.Backend.CPU(thread_count=self._threads)
        info = self._module.Benchmark(
            self._path, backend, prefill_tokens=prompt, decode_tokens=tokens, max_num_tokens=256, cache_dir=":nocache"
        ).run()
        mean_ms = 1000 / info.last_decode_tokens_per_second
        return 1000 * info.time_to_first_token_in_second, [mean_ms] * (tokens - 1)


RUNTIMES = {"transformers": Transformers, "genai": Genai, "llama-cpp": LlamaCpp, "litert-lm": LitertLm}


def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    stdout = os.dup(1)  # what runtimes print goes elsewhere
    os.dup2(2, 1)
    runtime = RUNTIMES[job["peer"]](job["path"], job["threads"])
    memory = watch_memory()
    runtime.load()
    texts, ids = [], []
    for number in range(_WARMUP_TEXTS + job["texts"]):
        if isinstance(runtime, LitertLm):
            first_ms, decode_ms = runtime.measure(len(job["prompt"]), job["tokens"])
        else:
            first_ms, decode_ms, ids = _timed(runtime, job["prompt"], job["tokens"])
        if number >= _WARMUP_TEXTS:
            texts.append({"first_ms": first_ms, "decode_ms": decode_ms})
    told = {"ids": ids, "texts": texts, "baseline_bytes": memory.baseline_bytes, "peak_bytes": memory.peak_bytes()}
    os.write(stdout, ("\n" + json.dumps(told) + "\n").encode())


def _timed(runtime: Any, prompt: list[int], tokens: int) -> tuple[float, list[float], list[int]]:
    began = time.perf_counter()
    times, ids = [], []
    for token in runtime.write(prompt, tokens):
        times.append(time.perf_counter())
        ids.append(token)
    times = getattr(runtime, "times", times)
    steps = [1000 * (after - before) for before, after in pairwise(times)]
    return 1000 * (times[0] - began), steps, ids


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _SILENT(level: int, text: bytes, data: Any) -> None:  # noqa: N802 - a constant: it must outlive the call
    """Say nothing."""


if __name__ == "__main__":
    main()
