"""Reading files: what is in them, and one clear line for those that are broken."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import BundleError, ExportError, RefusedError
from edgekit.export.checks import check_signatures, check_weights
from edgekit.export.describe import describe_file
from edgekit.export.float16 import check_range
from edgekit.program import Signature, TensorSpec
from tests.devices.models import write_onnx, write_tflite
from tests.export.routes import Routes


def damaged(content: bytes, seed: int) -> bytes:
    """The content cut short, with a byte changed, or with a piece overwritten."""
    generator = random.Random(seed)
    place = generator.randrange(len(content))
    match seed % 3:
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([content[place] ^ (1 << generator.randrange(8))]) + content[place + 1 :]
        case _:
            return content[:place] + generator.randbytes(16) + content[place + 16 :]


def refusal(path: Path) -> str | None:
    """What the reader says of a broken file; None where it can be read all the same."""
    try:
        describe_file(path)
    except BundleError as error:
        return str(error)
    return None


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_damaged_files_never_crash_the_reader(target: str, routes: Routes, tmp_path: Path) -> None:
    model, _ = routes.convert(target, "torch")
    small = {"tflite": write_tflite, "onnx": write_onnx}[target](tmp_path / f"small.{target}")
    refused = 0
    for source in (model, small):
        content = source.read_bytes()
        for seed in range(150):
            path = tmp_path / f"damaged.{target}"
            path.write_bytes(damaged(content, seed))
            message = refusal(path)
            refused += message is not None
            assert "\n" not in (message or "")
    assert refused > 60


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.pt2"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\0" * 4096])
def test_files_that_are_something_else(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        describe_file(tmp_path / name)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no file"):
        describe_file(tmp_path / "none.tflite")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match="no file that edgekit knows"):
        describe_file(tmp_path / "model.bin")


def test_reading_tflite_loads_no_framework(tmp_path: Path) -> None:
    model = write_tflite(tmp_path / "model.tflite")
    script = (
        "import sys; from pathlib import Path; from edgekit.export.describe import describe_file\n"
        "describe_file(Path(sys.argv[1]))\n"
        "print([m for m in ('tensorflow', 'torch', 'onnx', 'coremltools') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-P", "-c", script, str(model)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_onnx_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    port = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (64, 64)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", port[:1], port[1:], [weight])
    model = helper.make_model(graph)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(BundleError, match="another file"):
        describe_file(tmp_path / "model.onnx")


@pytest.fixture
def package(routes: Routes, tmp_path: Path) -> Path:
    """A copy of a Core ML package, to be broken."""
    return Path(shutil.copytree(routes.convert("coreml", "torch")[0], tmp_path / "model.mlpackage"))


def test_core_ml_weights_that_are_missing_or_cut_short(package: Path) -> None:
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=r"beyond"):
        describe_file(package)
    weights.write_bytes(bytes(len(content)))
    with pytest.raises(BundleError, match="not at its place"):
        describe_file(package)
    weights.unlink()
    with pytest.raises(BundleError, match="missing"):
        describe_file(package)
    (package.parent / "elsewhere.bin").write_bytes(content)
    weights.symlink_to(package.parent / "elsewhere.bin")
    with pytest.raises(BundleError, match="outside the package"):
        describe_file(package)


def test_core_ml_specifications_that_are_broken(package: Path) -> None:
    spec = package / "Data/com.apple.CoreML/model.mlmodel"
    spec.write_bytes(spec.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"truncated|broken|no ML program"):
        describe_file(package)
    spec.unlink()
    with pytest.raises(BundleError, match="can't read"):
        describe_file(package)


def test_core_ml_packages_hold_nothing_of_their_making(routes: Routes) -> None:
    for framework in ("torch", "tensorflow"):
        path, result = routes.convert("coreml", framework)
        assert [file.rpartition("/")[2] for file in result.files] == ["model.mlmodel", "weight.bin", "Manifest.json"]
        manifest = json.loads((path / "Manifest.json").read_text())
        assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
        assert b"conversion_date" not in (path / "Data/com.apple.CoreML/model.mlmodel").read_bytes()


def test_a_file_without_weights_or_in_another_dtype_is_an_error(routes: Routes, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="without its weights"):
        check_weights(describe_file(write_tflite(tmp_path / "model.tflite")), "none")
    float32 = describe_file(routes.convert("onnx", "torch")[0])
    check_weights(float32, "none")
    with pytest.raises(ExportError, match="fp16 did not take"):
        check_weights(float32, "fp16")


def test_a_signature_that_differs_is_an_error(tmp_path: Path) -> None:
    description = describe_file(write_tflite(tmp_path / "model.tflite"))
    specs = [TensorSpec(name=name, dtype="int32", shape=(1, 4)) for name in ("ids", "mask")]
    logits = TensorSpec(name="logits", dtype="float32", shape=(1, 4))
    right = Signature(name="serving_default", method="forward", inputs=tuple(specs), outputs=(logits,))
    check_signatures(description, [right])
    for wrong, words in (
        (right.model_copy(update={"name": "decode"}), "lacks the signature 'decode'"),
        (right.model_copy(update={"inputs": (specs[0],)}), "inputs are ids int32"),
        (right.model_copy(update={"outputs": (specs[0],)}), "outputs are logits float32"),
    ):
        with pytest.raises(ExportError, match=words):
            check_signatures(description, [wrong])


def test_weights_beyond_float16_are_refused() -> None:
    import numpy as np

    check_range("w", np.array([65504.0, -65504.0], np.float32))
    with pytest.raises(RefusedError, match=r"'w': its largest value is 7e\+04"):
        check_range("w", np.array([7e4], np.float32))
