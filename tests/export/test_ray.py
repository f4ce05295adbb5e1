"""The same sweep on a Ray cluster of two nodes of this machine: the same scores as by local processes."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import RefusedError
from edgekit.export.quantize.local_engine import run_batches
from edgekit.export.quantize.ray_engine import run_batches_on_ray
from edgekit.export.quantize.sensitivity import measure_sensitivity
from edgekit.export.quantize.sweep import prepare_sweep
from tests.export.sweeps import self_labelled_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, with processes and object stores of their own."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    try:
        made.add_node(num_cpus=1, object_store_memory=10**8)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


def test_two_nodes_give_the_scores_of_local_processes(cluster: Any, tmp_path: Path) -> None:
    checkpoint = self_labelled_checkpoint(tmp_path)
    nodes: set[str] = set()
    measured = []
    for name, engine in (("local", run_batches), ("ray", partial(run_batches_on_ray, address=cluster.address))):
        sweep = prepare_sweep(checkpoint, "tflite", eval_samples=40, calibration=None, parent=tmp_path / name)

        def watched(sweep: Any, batches: Sequence[Any], timed: bool, keep: Any, engine: Any = engine) -> None:
            engine(sweep, batches, timed, keep, **({"on_node": nodes.add} if engine is not run_batches else {}))

        measured.append(measure_sensitivity(sweep, ["int8-dynamic"], watched))
    local, on_ray = measured
    assert on_ray == local
    assert len(nodes) == 2, "both nodes had a part"


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    checkpoint = self_labelled_checkpoint(tmp_path)
    sweep = prepare_sweep(checkpoint, "tflite", eval_samples=10, calibration=None, parent=tmp_path)
    with pytest.raises(RefusedError, match=r"no Ray cluster at '127\.0\.0\.1:1': start one with `ray start --head`"):
        measure_sensitivity(sweep, ["int8-dynamic"], partial(run_batches_on_ray, address="127.0.0.1:1"))
