"""`edgekit bench --advise` and the CPU beside an accelerator, with real exports and real runtimes."""

import ctypes.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import open_bundle
from tests.cli.conftest import Edgekit
from tests.conftest import keeping, lacking
from tests.export.test_pipeline import edgekit as run_edgekit
from tests.tiny import tiny_checkpoint

QUICK = ("--num-runs", "20", "--min-secs", "0", "--max-secs", "5", "--cold-starts", "0")
GPU = ("--accelerator", "gpu", "--runtime", "litert-compiled")
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    """A folder with a checkpoint `tiny`, exported as TFLite: float32, float16, and int8."""
    folder = tmp_path_factory.mktemp("exported")
    tiny_checkpoint(folder)
    schemes = ("--quantize", "none,fp16,int8-weight", "--sequence-length", "16")
    with keeping(kept_exports):
        run_edgekit("export", "tiny", *schemes, cwd=folder)
    return folder


@pytest.fixture
def software_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """SwiftShader in the environment of the runner: Vulkan on the processor."""
    if not SWIFTSHADER.is_file() or ctypes.util.find_library("vulkan") is None:
        lacking("SwiftShader or a Vulkan loader")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))


def trials_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trial["variant"]: trial for trial in document["advice"]["trials"]}


@pytest.mark.usefixtures("software_gpu")
def test_the_cpu_stands_beside_a_gpu(edgekit: Edgekit, exported: Path) -> None:
    bundle = exported / "bundles" / "tiny.tflite-none.edgekit"
    document = edgekit("bench", bundle, *GPU, *QUICK, "--interleave", "--rounds", "2", "--json").json()
    gpu, cpu = (outcome["measurement"] for outcome in document["outcomes"])
    assert (gpu["accelerator"], cpu["accelerator"], cpu["runtime"]) == ("gpu", "cpu", "litert-compiled")
    (beside,) = document["beside_cpu"]
    assert (beside["run"], beside["cpu_run"], beside["in_turns"]) == (gpu["id"], cpu["id"], True)
    assert 0 < beside["low"] <= beside["speedup"] <= beside["high"]
    assert document["comparisons"] == []
    alone = edgekit("bench", bundle, *GPU, *QUICK, "--no-beside-cpu", "--json").json()
    assert [outcome["accelerator"] for outcome in alone["outcomes"]] == ["gpu"]
    assert alone["beside_cpu"] == []


@pytest.mark.usefixtures("software_gpu")
def test_what_breaks_on_a_gpu_is_exported_as_floats_and_tried(edgekit: Edgekit, exported: Path) -> None:
    """Weights in int8 crash LiteRT's GPU accelerator, or come out wrong: floats are right there."""
    shown = edgekit(
        "bench", exported / "bundles" / "tiny.tflite-int8-weight.edgekit", *GPU, *QUICK, "--advise", "--json"
    )
    assert shown.code == 1  # the bundle itself is as broken there as before
    trials = trials_of(shown.json())
    assert set(trials) == {"tiny.tflite-fp16", "tiny.tflite-none"}
    assert trials["tiny.tflite-none"]["result"] == "helped"
    assert trials["tiny.tflite-none"]["measurement"]["coverage"]["actual"] == "WebGPU"
    assert "as int8-weight" in trials["tiny.tflite-none"]["because"]


def test_a_quantized_file_is_tried_beside_float32_on_the_cpu(
    edgekit: Edgekit, exported: Path, kept_exports: Path
) -> None:
    """What is there already is taken; what is not is exported beside the bundle."""
    folder = exported / "bundles"
    with keeping(kept_exports):
        shown = edgekit("bench", folder / "tiny.tflite-int8-weight.edgekit", *QUICK, "--advise")
    assert shown.code == 0, shown.err
    assert "Exporting what may help: tiny.tflite-int8-dynamic" in shown.err
    assert "tiny.tflite-none," not in shown.err
    assert "whether int8-weight pays shows beside float32 only" in " ".join(shown.out.replace("│", " ").split())
    made = open_bundle(folder / "tiny.tflite-int8-dynamic.edgekit").manifest
    assert made.source == open_bundle(folder / "tiny.tflite-int8-weight.edgekit").manifest.source


def test_without_its_checkpoint_the_advice_is_said_and_not_tried(
    edgekit: Edgekit, exported: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(exported / "bundles" / "tiny.tflite-int8-weight.edgekit", tmp_path / "alone.edgekit"))
    moved = exported / "tiny"
    moved.rename(exported / "elsewhere")
    try:
        document = edgekit("bench", bundle, *QUICK, "--advise", "--json").json()
    finally:
        (exported / "elsewhere").rename(moved)
    assert document["advice"]["trials"] == []
    (remark,) = document["advice"]["remarks"]
    assert "worth trying: none, int8-dynamic, but the checkpoint that it was made of is not at" in remark


def test_what_is_right_and_fast_needs_no_advice(edgekit: Edgekit, exported: Path) -> None:
    document = edgekit("bench", exported / "bundles" / "tiny.tflite-none.edgekit", *QUICK, "--advise", "--json").json()
    assert document["advice"] == {
        "trials": [],
        "remarks": ["tiny.tflite-none · cpu · local: nothing to try, it ran as asked and its outputs are right"],
    }
