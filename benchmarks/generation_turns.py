"""One turn of a candidate of `generation.py` in a fresh process, and what this machine's memory gives."""

import json
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import generation_models as models
import numpy as np
from generation_candidates import Candidate
from peers_candidates import python_of

from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError
from edgekit.proof.replay import run_job

PROMPT_TOKENS, NEW_TOKENS, TEXTS = 64, 64, 4
TIMEOUT_S = 300


@dataclass(kw_only=True)
class Measured:
    """What a candidate took with so many threads, turn by turn; ms and bytes."""

    first_ms: list[list[float]] = field(default_factory=list)
    decode_ms: list[list[float]] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    error: str = ""


def make_prompt() -> list[int]:
    """Real tokens, [BOS] first."""
    checkpoint = models.make_checkpoint()
    texts = ["Please select the items that you want to delete, and confirm. ", "Datei speichern? "] * 8
    ids = [token for row in checkpoint.processor.encode_uncut(texts) for token in row]
    return [1, *ids][:PROMPT_TOKENS]


def take_turn(candidate: Candidate, threads: int, prompt: list[int], into: Measured) -> None:
    """One fresh process; its first fault ends the candidate."""
    if into.error:
        return
    try:
        told = run_ours(candidate, threads, prompt) if candidate.ours else run_peer(candidate, threads, prompt)
    except (EdgekitError, RuntimeError, OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
        into.error = " ".join(str(error).split())[:200]
        return
    into.first_ms.append([text["first_ms"] for text in told["texts"]])
    into.decode_ms.append([ms for text in told["texts"] for ms in text["decode_ms"]])
    into.memory_bytes.append(told["peak_bytes"] - told["baseline_bytes"])
    into.ids = told["ids"]


def run_ours(candidate: Candidate, threads: int, prompt: list[int]) -> dict[str, Any]:
    """By the runner, as `edgekit bench` and `edgekit generate` do."""
    bundle = open_bundle(candidate.make(threads))
    prompts = [{"ids": prompt, "source": []}]
    measuring = {"prompts": prompts, "tokens": NEW_TOKENS - 1, "context": models.CONTEXT}
    writing = {"prompts": prompts, "max_new_tokens": NEW_TOKENS, "stream": False, "context": models.CONTEXT}
    told: dict[str, Any] = {"texts": []}
    with tempfile.TemporaryDirectory() as folder:
        events = run_job(
            bundle.model_path, bundle.manifest.runtime, Path(folder), timeout_s=TIMEOUT_S, num_threads=threads,
            operation="measure-generation", prove=False, num_runs=(NEW_TOKENS - 1) * TEXTS, min_secs=0.0,
            generation=measuring,
        )  # fmt: skip
        told["texts"] = [event for event in events if event["event"] == "text"]
        told |= next(event for event in events if event["event"] == "memory")
    with tempfile.TemporaryDirectory() as folder:
        events = run_job(bundle.model_path, bundle.manifest.runtime, Path(folder), timeout_s=TIMEOUT_S,
                         operation="generate", generation=writing)  # fmt: skip
        told["ids"] = next(event["ids"] for event in events if event["event"] == "written")
    return told


def run_peer(candidate: Candidate, threads: int, prompt: list[int]) -> dict[str, Any]:
    """By generation_run.py in the peer's environment."""
    job = {"peer": candidate.peer, "path": str(candidate.make(threads)), "threads": threads, "prompt": prompt}
    command = [str(python_of(candidate.environment)), str(Path(__file__).parent / "generation_run.py")]
    text = json.dumps(job | {"tokens": NEW_TOKENS, "texts": TEXTS})
    run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if run.returncode:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else f"ended with {run.returncode}")
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def copy_rate(threads: int) -> float:
    """Bytes per second that copies of 256 MB read, with so many threads at once: what this machine's memory gives."""
    pairs = [(np.ones(1 << 25, np.float64), np.zeros(1 << 25, np.float64)) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            best = max(best, threads * pairs[0][0].nbytes / (time.perf_counter() - began))
    return best
