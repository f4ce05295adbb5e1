"""`edgekit verify --bisect`: the module that a file departs at, in files whose weights were changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import open_bundle, seal_bundle
from edgekit.checkpoint import load_checkpoint
from edgekit.errors import CheckpointError, RefusedError
from edgekit.export.schemes import TOLERANCES
from edgekit.proof.bisect import bisect_bundle
from tests.conftest import keeping
from tests.export.test_pipeline import edgekit
from tests.tiny import tiny_checkpoint

FORMATS = ("tflite", "onnx", "coreml")
#: what is broken; query's neighbours key and value stay right. litert-torch folds the norm before it into its weights
BROKEN = [
    (target, module)
    for target in FORMATS
    for module in ("blocks.0.attention.query", "blocks.0.attention.output", "blocks.1.ffn.down", "classifier")
    if (target, module) != ("tflite", "blocks.0.attention.query")
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    """A tiny checkpoint, exported to the three formats in float32 and float16, through torch."""
    folder = tmp_path_factory.mktemp("bisect")
    tiny_checkpoint(folder)
    argv = ("export", "tiny", "--target", ",".join(FORMATS), "--quantize", "none,fp16", "-o", "bundles")
    with keeping(kept_exports):
        edgekit(*argv, cwd=folder, timeout_s=900)
    return folder


def broken(bundles: Path, target: str, change: Callable[[bytes], bytes], folder: Path) -> Path:
    """A copy of the float32 bundle with a changed file, sealed again."""
    path = Path(shutil.copytree(bundles / "bundles" / f"tiny.{target}-none.edgekit", folder / f"{target}.edgekit"))
    bundle = open_bundle(path)
    model = bundle.model_path
    file = model / "Data/com.apple.CoreML/weights/weight.bin" if target == "coreml" else model
    content = file.read_bytes()
    file.write_bytes(change(content))
    assert file.read_bytes() != content
    for name in ("manifest.json", "manifest.sha256"):
        (path / name).unlink()
    seal_bundle(path, **bundle.manifest.model_dump(exclude={"files"}))
    return path


def zeroed(weight: np.ndarray) -> Callable[[bytes], bytes]:
    """Replace a matrix by zeros, wherever it is stored, as it is or transposed."""

    def change(content: bytes) -> bytes:
        for stored in (weight, np.ascontiguousarray(weight.T)):
            content = content.replace(stored.astype("<f4").tobytes(), bytes(weight.nbytes))
        return content

    return change


@pytest.mark.parametrize("scheme", ["none", "fp16"])
@pytest.mark.parametrize("target", FORMATS)
def test_nothing_departs_in_good_files(target: str, scheme: str, bundles: Path) -> None:
    path = bundles / "bundles" / f"tiny.{target}-{scheme}.edgekit"
    found = bisect_bundle(open_bundle(path), TOLERANCES[scheme].relative)
    assert found.departs is None
    modules = [match.module for match in found.matches]
    assert modules[0] == "embed.tokens"
    assert modules[-1] == "classifier"
    assert {"blocks.1.attention.query", "blocks.1.ffn.up", "final_norm"} <= set(modules)
    assert found.matches[-1].difference <= TOLERANCES[scheme].relative


@pytest.mark.parametrize(("target", "module"), BROKEN)
def test_the_module_whose_weights_were_changed_is_named(
    target: str, module: str, bundles: Path, tmp_path: Path
) -> None:
    weight = load_checkpoint(bundles / "tiny").weights[f"{module}.weight"]
    path = broken(bundles, target, zeroed(weight), tmp_path)
    found = bisect_bundle(open_bundle(path), TOLERANCES["none"].relative)
    assert found.departs is not None
    assert found.departs.module == module


def test_the_command_prints_it(bundles: Path, tmp_path: Path) -> None:
    weight = load_checkpoint(bundles / "tiny").weights["blocks.1.ffn.up.weight"]
    path = broken(bundles, "onnx", zeroed(weight), tmp_path)
    run = edgekit("verify", "--bisect", str(path), "--json", cwd=tmp_path, code=1)
    (result,) = json.loads(run.stdout)
    assert result["departs"]["module"] == "blocks.1.ffn.up"
    shown = edgekit("verify", "--bisect", str(path), cwd=tmp_path, code=1)
    assert "blocks.1.ffn.up" in shown.stdout
    assert result["departs"]["tensor"][:8] in shown.stdout


def test_a_source_that_was_changed_is_refused(bundles: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundles / "bundles" / "tiny.onnx-none.edgekit", tmp_path / "x.edgekit"))
    bundle = open_bundle(path)
    source = bundle.manifest.source.model_copy(update={"sha256": "0" * 64})
    for name in ("manifest.json", "manifest.sha256"):
        (path / name).unlink()
    seal_bundle(path, **(bundle.manifest.model_dump(exclude={"files"}) | {"source": source}))
    with pytest.raises(CheckpointError, match="no longer the checkpoint"):
        bisect_bundle(open_bundle(path), 1e-5)


def test_runtimes_that_keep_no_tensors_are_refused(bundles: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundles / "bundles" / "tiny.onnx-none.edgekit", tmp_path / "x.edgekit"))
    bundle = open_bundle(path)
    for name in ("manifest.json", "manifest.sha256"):
        (path / name).unlink()
    seal_bundle(path, **(bundle.manifest.model_dump(exclude={"files"}) | {"runtime": "torch", "target": "pt2"}))
    with pytest.raises(RefusedError, match="--bisect takes TFLite, ONNX and Core ML bundles"):
        bisect_bundle(open_bundle(path), 1e-5)
