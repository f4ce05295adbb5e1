"""The on-device runner as a process of its own, in every runtime that is installed."""

import importlib.util
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import lacking
from tests.devices.models import integers, write_onnx, write_pt2, write_savedmodel, write_steps, write_tflite

RUNNER = Path(__file__).parents[2] / "devices" / "runner"
WRITERS = {
    "litert": ("model.tflite", write_tflite),
    "onnxruntime": ("model.onnx", write_onnx),
    "torch": ("model.pt2", write_pt2),
    "tensorflow": ("savedmodel", write_savedmodel),
}
GOOD = {"ids": integers(1, 2, 3, 4), "mask": integers(1, 1, 2, 2)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {runtime: write(folder / name) for runtime, (name, write) in WRITERS.items()}


def run(
    folder: Path,
    runtime: str,
    model: Path,
    *steps: dict[str, np.ndarray],
    argv: tuple[str, ...] = (sys.executable, "-P", "-m", "edgekit.devices.runner"),
    cwd: Path | None = None,
    override: dict[str, Any] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and events of one run; whatever else is on standard output makes it fail."""
    paths = {"model": str(model), "steps": str(folder / "steps.npz"), "outputs": str(folder / "outputs.npz")}
    write_steps(folder / "steps.npz", *steps)
    job = {"schema": 1, "runtime": runtime, **paths, **(override or {})}
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [*argv, str(folder / "job.json")], capture_output=True, text=True, timeout=120, cwd=cwd or folder, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def outputs_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        return dict(archive)


def fails(code: int, events: list[dict[str, Any]], kind: str, *words: str) -> None:
    assert code == 3
    error = events[-1]
    assert (error["schema"], error["event"], error["kind"]) == (1, "error", kind)
    assert "\n" not in error["message"]
    for word in words:
        assert word in error["message"]


@pytest.mark.parametrize("runtime", WRITERS)
def test_steps_are_replayed_in_order(runtime: str, models: dict[str, Path], tmp_path: Path) -> None:
    second = {"ids": integers(8, 6, 4, 2), "mask": integers(2, 2, 2, 2)}
    code, events = run(tmp_path, runtime, models[runtime], GOOD, second, override={"num_threads": 2})
    assert code == 0, events
    assert [event["event"] for event in events] == ["loaded", "done"]
    assert events[0]["runtime"] == runtime
    assert re.match(r"\d+\.\d+", events[0]["version"])
    (signature,) = events[0]["signatures"].values()
    integer = {"dtype": "int64" if runtime == "onnxruntime" else "int32", "shape": [1, 4]}
    assert signature == {
        "inputs": {"ids": integer, "mask": integer},
        "outputs": {"logits": {"dtype": "float32", "shape": [1, 4]}},
    }
    assert events[1]["steps"] == 2
    assert events[1]["non_finite"] == {}
    produced = outputs_of(tmp_path)
    assert list(produced) == ["00000/serving_default/out/logits", "00001/serving_default/out/logits"]
    np.testing.assert_allclose(produced["00000/serving_default/out/logits"], [[1, 2, 1.5, 2]])
    np.testing.assert_allclose(produced["00001/serving_default/out/logits"], [[4, 3, 2, 1]])


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_nan_and_infinity_are_counted(runtime: str, models: dict[str, Path], tmp_path: Path) -> None:
    code, events = run(tmp_path, runtime, models[runtime], {"ids": integers(0, 1, 1, 1), "mask": integers(0, 0, 1, 1)})
    assert code == 0
    assert events[-1]["non_finite"] == {"logits": 2}
    assert np.isnan(outputs_of(tmp_path)["00000/serving_default/out/logits"][0, 0])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"ids": GOOD["ids"]}, ["lacks the input 'mask'"]),
        (GOOD | {"extra": integers(1)}, ["no input 'extra'", "ids, mask"]),
        (GOOD | {"ids": integers(1, 2, 3)}, ["'ids'", "[1, 3]", "[1, 4]"]),
        (GOOD | {"mask": np.ones((1, 4), np.float32)}, ["'mask'", "float32", "int32"]),
        (GOOD | {"ids": integers(1, 2, 3, 2**40, dtype=np.int64)}, ["'ids'", "beyond int32"]),
    ],
)
def test_inputs_that_do_not_fit(
    inputs: dict[str, np.ndarray], words: list[str], models: dict[str, Path], tmp_path: Path
) -> None:
    fails(*run(tmp_path, "litert", models["litert"], inputs), "bad-input", "step 00000", *words)
    assert not (tmp_path / "outputs.npz").exists()


def test_an_unknown_signature(models: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path, "litert", models["litert"], GOOD)
    with np.load(tmp_path / "steps.npz") as archive:
        renamed = {key.replace("serving_default", "decode"): archive[key] for key in archive.files}
    np.savez(tmp_path / "renamed.npz", **renamed)
    steps = str(tmp_path / "renamed.npz")
    fails(
        *run(tmp_path, "litert", models["litert"], GOOD, override={"steps": steps}),
        "bad-input",
        "'decode'",
        "serving_default",
    )


def test_wider_integers_that_fit_are_taken(models: dict[str, Path], tmp_path: Path) -> None:
    wide = {name: value.astype(np.int64) for name, value in GOOD.items()}
    assert run(tmp_path, "litert", models["litert"], wide)[0] == 0


@pytest.mark.parametrize("runtime", WRITERS)
def test_a_corrupt_file(runtime: str, models: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / WRITERS[runtime][0]
    if models[runtime].is_dir():
        shutil.copytree(models[runtime], broken)
        (broken / "saved_model.pb").write_bytes((broken / "saved_model.pb").read_bytes()[:100])
    else:
        content = models[runtime].read_bytes()
        broken.write_bytes(content[: len(content) // 3])
    code, events = run(tmp_path, runtime, broken, GOOD)
    fails(code, events, "load-failed", broken.name)


def test_a_missing_file(tmp_path: Path) -> None:
    fails(*run(tmp_path, "litert", tmp_path / "none.tflite", GOOD), "load-failed", "there is no file")


def test_steps_that_are_none(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    bad = {"steps": str(tmp_path / "bad.npz")}
    fails(*run(tmp_path, "litert", models["litert"], GOOD, override=bad), "bad-input", "can't read the steps")
    fails(*run(tmp_path, "litert", models["litert"]), "bad-input", "holds no step")


def test_pickled_steps_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **{"00000/serving_default/in/ids": np.array([{}], dtype=object)})
    bad = {"steps": str(tmp_path / "bad.npz")}
    fails(*run(tmp_path, "litert", models["litert"], GOOD, override=bad), "bad-input", "can't read the steps")


def test_a_runtime_that_is_not_installed(models: dict[str, Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("tflite_runtime"):
        lacking("the lack of tflite_runtime")
    fails(*run(tmp_path, "tflite-runtime", models["litert"], GOOD), "runtime-missing", "tflite_runtime")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"schema": 2}, "schema"),
        ({"runtime": "tvm"}, "'tvm'"),
        ({"num_threads": 0}, "num_threads"),
        ({"num_threads": "2"}, "num_threads"),
        ({"steps": None}, "steps"),
        ({"threads": 2}, "'threads'"),
    ],
)
def test_a_job_that_is_none(fields: dict[str, Any], word: str, models: dict[str, Path], tmp_path: Path) -> None:
    code, events = run(tmp_path, "litert", models["litert"], GOOD, override=fields)
    assert code == 2
    assert events[-1]["kind"] == "bad-job"
    assert word in events[-1]["message"]


def test_a_numpy_in_the_working_folder_is_not_run(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy was run')")
    assert run(tmp_path, "litert", models["litert"], GOOD)[0] == 0


def test_it_runs_from_a_copied_folder(models: dict[str, Path], tmp_path: Path) -> None:
    """As on a board: `python3 -m runner`, with edgekit nowhere in reach."""
    shutil.copytree(RUNNER, tmp_path / "board" / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    code, _ = run(
        tmp_path,
        "litert",
        models["litert"],
        GOOD,
        argv=(sys.executable, "-m", "runner"),
        cwd=tmp_path / "board",
    )
    assert code == 0
    for file in RUNNER.glob("*.py"):
        assert not re.search(r"^\s*(from|import)\s+(edgekit|pydantic|rich)", file.read_text(), re.MULTILINE)


def test_it_ends_with_its_parent_where_asked(models: dict[str, Path], tmp_path: Path) -> None:
    """A closed pipe on standard input ends it at once, and only where the job says so."""
    run(tmp_path, "litert", models["litert"], GOOD)
    job = json.loads((tmp_path / "job.json").read_text())
    for flag, code in ((False, 0), (True, 1)):
        (tmp_path / "job.json").write_text(json.dumps(job | {"die_with_parent": flag}))
        argv = [sys.executable, "-P", "-m", "edgekit.devices.runner", str(tmp_path / "job.json")]
        assert subprocess.run(argv, input="", text=True, capture_output=True, check=False).returncode == code


def rewrite_archive(source: Path, target: Path, suffix: str, content: bytes) -> Path:
    """A copy of a .pt2 with one member replaced, or added below its top folder."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        top = before.namelist()[0].split("/", 1)[0]
        for name in before.namelist():
            if not name.endswith(suffix):
                after.writestr(name, before.read(name))
        after.writestr(f"{top}/{suffix}", content)
    return target


class _Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_archives_that_could_run_code_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    marker = tmp_path / "code-was-run"
    pickled = io.BytesIO()
    pickle.dump(_Exploit(marker), pickled)
    config = json.dumps({"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": True}}}).encode()
    expression = json.dumps({"range_constraints": {"s0": {"expr_str": "__import__('os')"}}}).encode()
    hostile = {
        "data/weights/model_weights_config.json": (config, "pickled"),
        "models/model.json": (expression, "evaluate"),
        "data/aotinductor/model/code.so": (b"\x7fELF", "no part"),
    }
    for member, (content, word) in hostile.items():
        path = rewrite_archive(models["torch"], tmp_path / "hostile.pt2", member, content)
        fails(*run(tmp_path, "torch", path, GOOD), "load-failed", word)
    samples = rewrite_archive(
        models["torch"], tmp_path / "hostile.pt2", "data/sample_inputs/model.pt", pickled.getvalue()
    )
    run(tmp_path, "torch", samples, GOOD)  # torch may refuse it or pass it over: it must not run it
    assert not marker.exists()
