"""TFLite files by the C interface of libLiteRt.so: the same answers as CompiledModel's, in less memory."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.devices.runner.backend import import_runtime, load_backend
from edgekit.devices.runner.backend_litert_compiled import CompiledBackend
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.litert_direct import DirectBackend
from edgekit.devices.runner.memory import drop_pages
from tests.devices.models import write_tflite

LENGTHS = {"short": (1, 4), "long": (1, 16)}


def job(model: Path, **fields: object) -> RunnerJob:
    return RunnerJob(runtime="litert-compiled", model=str(model), steps="", outputs="")._replace(**fields)  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tflite(tmp_path / "model.tflite", LENGTHS)


def test_every_signature_answers_as_with_compiled_model(model: Path) -> None:
    asked = job(model)
    runtime = import_runtime(asked)
    direct, compiled = load_backend(runtime, asked), CompiledBackend(runtime.imported, asked)
    assert isinstance(direct, DirectBackend)
    assert direct.signatures == compiled.signatures
    for turn in range(2):  # buffers are used again
        for name, shape in LENGTHS.items():
            inputs = {key: np.full(shape, 5 + turn, np.int32) for key in ("ids", "mask")}
            wanted, found = compiled.run(name, inputs), direct.run(name, inputs)
            assert found.keys() == wanted.keys()
            for key in wanted:
                np.testing.assert_array_equal(found[key], wanted[key])


@pytest.mark.parametrize("fields", [{"xnnpack": False}, {"accelerator": "gpu"}])
def test_what_needs_compiled_model_is_left_to_it(model: Path, fields: dict[str, object]) -> None:
    from edgekit.devices.runner.litert_direct import open_direct

    asked = job(model, **fields)
    assert open_direct(import_runtime(asked).imported, asked) is None


def test_another_version_is_left_to_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job(model)
    runtime = import_runtime(asked)
    monkeypatch.setattr("edgekit.devices.runner.litert_library.VERSION", "9.9.9")
    assert type(load_backend(runtime, asked)) is CompiledBackend


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_a_mapped_file_are_dropped_and_come_again(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 4096)
    mapped = np.memmap(path, np.uint8, "r")
    total = int(mapped.astype(np.int64).sum())
    assert _resident_kb(path) >= 1024
    drop_pages(str(path))
    assert _resident_kb(path) == 0
    assert int(mapped.astype(np.int64).sum()) == total


def _resident_kb(path: Path) -> int:
    lines = Path("/proc/self/smaps").read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[place:] if line.startswith("Rss:"))
