"""Training in several processes: which of them this one is, as torchrun and TensorFlow's TF_CONFIG say."""

import json
import os
from dataclasses import dataclass

from edgekit.errors import RefusedError
from edgekit.program import Framework


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of `count` that train together; the one of rank 0 writes and prints."""

    rank: int = 0
    count: int = 1


ONE = Worker()


def this_worker(framework: Framework) -> Worker:
    """Return which worker this process is: by RANK and WORLD_SIZE (torchrun), or by TF_CONFIG.

    Raises RefusedError where they can't be read.
    """
    try:
        if framework == "torch":
            return Worker(rank=int(os.environ.get("RANK", "0")), count=int(os.environ.get("WORLD_SIZE", "1")))
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        workers = config.get("cluster", {}).get("worker", ["this one"])
        return Worker(rank=int(config.get("task", {}).get("index", 0)), count=len(workers))
    except (ValueError, TypeError, AttributeError) as error:
        names = "RANK and WORLD_SIZE" if framework == "torch" else "TF_CONFIG"
        raise RefusedError(f"{names} in the environment can't be read as a worker's place: {error}") from error


def check_alone(framework: Framework, task: str) -> None:
    """Raise RefusedError where a task that trains in one process was started in several."""
    count = this_worker(framework).count
    if count > 1:
        raise RefusedError(f"--task {task} trains in one process, not in {count}: start edgekit train by itself")
