"""Runs the batches of a sweep on a Ray cluster (`--engine ray`): the same worker processes, on whichever node is free.

The nodes need edgekit with the target's extra, and nothing else: what a sweep is made from travels through Ray's object
store, once to each node.
"""

import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import RefusedError
from edgekit.export.quantize.local_engine import run_batch
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sweep import Sweep
from edgekit.export.recipes import Recipe
from edgekit.program import SourceRef

Files = dict[str, bytes]  # path relative to the folder of a sweep → content

_RETRIES = 2  # of a batch whose node was lost
_CONNECT_S = 10.0


def run_batches_on_ray(
    sweep: Sweep,
    batches: Sequence[Sequence[Recipe]],
    timed: bool,
    keep: Callable[[Sequence[Score]], None],
    *,
    address: str = "auto",
    on_node: Callable[[str], None] = lambda node: None,
) -> None:
    """Score all batches on the cluster at `address`; `keep` gets the scores of each as it comes, `on_node` its node.

    Raises RefusedError for timed candidates (nodes differ, so their times can't be compared) and where there is no
    cluster.
    """
    if timed:
        raise RefusedError("--engine ray compares no times, its nodes differ: use --engine local for latency")
    import ray

    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise RefusedError(f"no Ray cluster at {address!r}: start one with `ray start --head` ({error})") from error
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(score_on_node)
        files, source = ray.put(_pack(sweep)), sweep.source
        waiting = [task.remote(files, sweep.target, source.framework, sweep.calibrated, list(b)) for b in batches]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            node, rows = ray.get(done[0])
            on_node(node)
            keep([Score.model_validate(row) for row in rows])
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray 2.60 tries for minutes, and then ends the process."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def score_on_node(
    files: Files, target: str, framework: Any, calibrated: bool, batch: Sequence[Recipe]
) -> tuple[str, list[dict[str, Any]]]:
    """Unpack a sweep into a temporary folder of this node and score one batch there; the node's id, and plain data."""
    import ray

    from edgekit.sources.checkpoint import checkpoint_source

    with tempfile.TemporaryDirectory(prefix="edgekit-sweep-") as name:
        folder = Path(name)
        for relative, content in files.items():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / relative).write_bytes(content)
        source: SourceRef = checkpoint_source(folder / "checkpoint", framework)
        sweep = Sweep(
            checkpoint=load_checkpoint(folder / "checkpoint"),
            target=target,
            source=source,
            folder=folder,
            texts="",
            num_texts=0,
            calibrated=calibrated,
        )
        scores = run_batch(sweep, batch, timed=False)
        return ray.get_runtime_context().get_node_id(), [score.model_dump(mode="json") for score in scores]


def _pack(sweep: Sweep) -> Files:
    """The float32 file, golden data, calibration and checkpoint: all that a batch reads."""
    needed = [sweep.model, sweep.folder / "golden.npz", sweep.folder / "calibration.npz"]
    files = {path.relative_to(sweep.folder).as_posix(): path.read_bytes() for top in needed for path in _files(top)}
    for path in _files(sweep.checkpoint.path):
        files[f"checkpoint/{path.relative_to(sweep.checkpoint.path).as_posix()}"] = path.read_bytes()
    return files


def _files(top: Path) -> list[Path]:
    if top.is_file():
        return [top]
    return sorted(path for path in top.rglob("*") if path.is_file())
