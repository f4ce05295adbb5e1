"""Packages on disk: written by coremltools, read back, and what a broken or hostile one leads to."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.proto import Model_pb2

from edgekit.mil.evaluator import load_evaluator, operation_kinds
from edgekit.mil.failures import MilError
from edgekit.mil.package import open_package
from tests.mil.programs import TARGETS, ct, floats, mb, same, types

SPEC, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
WEIGHT, BIAS = floats(64, 32), floats(64, seed=1)


def convert(program: Any, path: Path, **options: Any) -> Path:
    """Convert and save, as coremltools' users do."""
    target = {"minimum_deployment_target": program.functions["main"].opset_version}
    model = ct.convert(program, convert_to="mlprogram", skip_model_load=True, **target, **options)
    model.save(str(path))
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer of float16 from float32 to float32, for iOS 17."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 32))], opset_version=TARGETS[17])
    def program(x: Any) -> Any:
        return mb.relu(x=mb.linear(x=x, weight=WEIGHT, bias=BIAS), name="y")

    return convert(program, tmp_path_factory.mktemp("packages") / "model.mlpackage")


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "model.mlpackage"))


def refuses(path: Path, *words: str, kind: str = "load-failed") -> None:
    with pytest.raises(MilError) as caught:
        load_evaluator(path)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def edit(path: Path, change: Any) -> Path:
    """Change the specification of a package."""
    model = Model_pb2.Model.FromString((path / SPEC).read_bytes())
    change(model)
    (path / SPEC).write_bytes(model.SerializeToString())
    return path


def main_block(model: Any) -> Any:
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def test_a_package_is_evaluated(package: Path) -> None:
    x = floats(2, 32)
    exact = torch.relu(torch.nn.functional.linear(*(torch.from_numpy(each) for each in (x, WEIGHT, BIAS))))
    rounded = load_evaluator(package).run({"x": x})["y"]
    assert rounded.dtype == np.float32
    same(rounded, exact, relative=2e-3, absolute=1e-2)
    assert np.all(rounded == rounded.astype(np.float16))  # every value was rounded to float16
    floating = load_evaluator(package, precision="fp32").run({"x": x})["y"]
    halves = torch.nn.functional.linear(
        torch.from_numpy(x), *(torch.from_numpy(each.astype(np.float16).astype(np.float32)) for each in (WEIGHT, BIAS))
    )
    same(floating, torch.relu(halves), relative=1e-5, absolute=1e-5)  # only the weights were
    assert "linear" in operation_kinds(load_evaluator(package))


def test_weights_stay_in_the_file(package: Path) -> None:
    """They are views of the mapped file: nothing is copied at load."""
    block = load_evaluator(package).functions["main"].block
    (weight,) = [value for value in block.constants.values() if getattr(value, "shape", ()) == WEIGHT.shape]
    assert not weight.flags.owndata
    assert not weight.flags.writeable


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("kind", ["palette", "linear", "sparse"])
def test_compressed_packages(kind: str, bits: int, package: Path, tmp_path: Path) -> None:
    """coremltools' own compression of a package, beside coremltools' own decompression."""
    import coremltools.optimize.coreml as optimize

    model = ct.models.MLModel(str(package), skip_model_load=True)
    if kind == "palette":
        config = optimize.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=64)
        made = optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))
    elif kind == "linear" and bits in (4, 8):
        if bits == 4:
            model._spec.specificationVersion = 9
        options = {"dtype": f"int{bits}", "granularity": "per_block", "block_size": 16} if bits == 4 else {}
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64, **options)
        made = optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))
    elif kind == "sparse":
        config = optimize.OpMagnitudePrunerConfig(target_sparsity=bits / 10, weight_threshold=64)
        made = optimize.prune_weights(model, optimize.OptimizationConfig(global_config=config))
    else:
        return
    made.save(str(tmp_path / "small.mlpackage"))
    dense = optimize.decompress_weights(ct.models.MLModel(str(tmp_path / "small.mlpackage"), skip_model_load=True))
    dense.save(str(tmp_path / "dense.mlpackage"))
    x = floats(2, 32)
    small, whole = (load_evaluator(tmp_path / f"{name}.mlpackage") for name in ("small", "dense"))
    assert any(each.startswith("constexpr_") for each in operation_kinds(small))
    assert not any(each.startswith("constexpr_") for each in operation_kinds(whole))
    same(small.run({"x": x})["y"], whole.run({"x": x})["y"], relative=2e-3, absolute=1e-2)


def flexible(path: Path, shape: Any) -> Path:
    """A sum over rows whose number is flexible."""

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, ct.converters.mil.mil.get_new_symbol()), dtype=types.int32)],
        opset_version=TARGETS[17],
    )
    def program(ids: Any) -> Any:
        table = mb.gather(x=floats(9, 4), indices=ids, axis=0)
        return mb.reduce_sum(x=table, axes=[1], name="y")

    return convert(program, path, inputs=[ct.TensorType(name="ids", shape=shape, dtype=np.int32)])


def test_enumerated_shapes(tmp_path: Path) -> None:
    path = flexible(tmp_path / "model.mlpackage", ct.EnumeratedShapes(shapes=[[1, 4], [1, 8]], default=[1, 4]))
    evaluator = load_evaluator(path)
    for length in (4, 8):
        ids = np.arange(length, dtype=np.int32)[None]
        same(evaluator.run({"ids": ids})["y"], floats(9, 4)[ids].sum(1), relative=1e-2, absolute=1e-2)
    with pytest.raises(MilError, match=r"'ids' has the shape \[1, 5\], the package takes \[1, 4\] or \[1, 8\]"):
        evaluator.run({"ids": np.zeros((1, 5), np.int32)})


@pytest.mark.parametrize(("most", "text"), [(6, "2 to 6"), (-1, "2 or more")])
def test_ranges_of_shapes(most: int, text: str, tmp_path: Path) -> None:
    path = flexible(tmp_path / "model.mlpackage", (1, ct.RangeDim(2, 6, default=2)))

    def change(model: Any) -> None:
        model.description.input[0].type.multiArrayType.shapeRange.sizeRanges[1].upperBound = most

    edit(path, change)
    evaluator = load_evaluator(path)
    same(evaluator.run({"ids": np.zeros((1, 6), np.int32)})["y"], 6 * floats(9, 4)[:1], relative=1e-2, absolute=1e-2)
    for length in (1, 7) if most > 0 else (1,):
        with pytest.raises(MilError, match=rf"the package takes \[1, {text}\]") as caught:
            evaluator.run({"ids": np.zeros((1, length), np.int32)})
        assert caught.value.kind == "bad-input"


def test_shapes_that_contradict_each_other(tmp_path: Path) -> None:
    symbol = ct.converters.mil.mil.get_new_symbol()
    specs = [mb.TensorSpec(shape=(1, symbol)), mb.TensorSpec(shape=(1, symbol))]

    @mb.program(input_specs=specs, opset_version=TARGETS[17])
    def program(a: Any, b: Any) -> Any:
        return mb.add(x=a, y=b, name="y")

    length = ct.RangeDim(2, 9, default=2)
    inputs = [ct.TensorType(name=name, shape=(1, length)) for name in "ab"]
    evaluator = load_evaluator(convert(program, tmp_path / "model.mlpackage", inputs=inputs))
    with pytest.raises(MilError, match="operation 'add'"):
        evaluator.run({"a": floats(1, 3), "b": floats(1, 4)})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, ["'x' is missing"]),
        ({"x": floats(2, 32), "z": floats(2)}, ["no input 'z'", "it takes x"]),
        ({"x": floats(3, 32)}, ["'x'", "[3, 32]", "[2, 32]"]),
        ({"x": np.zeros((2, 32), np.int32)}, ["'x'", "int32", "float32"]),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, np.ndarray], words: list[str], package: Path) -> None:
    with pytest.raises(MilError) as caught:
        load_evaluator(package).run(inputs)
    assert caught.value.kind == "bad-input"
    assert all(word in str(caught.value) for word in words)


def test_several_functions(package: Path, tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name in ("short", "long"):
        descriptor.add_function(str(package), src_function_name="main", target_function_name=name)
    descriptor.default_function_name = "short"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    evaluator = load_evaluator(tmp_path / "both.mlpackage")
    assert set(evaluator.inputs) == {"short", "long"}
    x = floats(2, 32)
    same(evaluator.run({"x": x}, "long")["y"], load_evaluator(package).run({"x": x})["y"])
    with pytest.raises(MilError, match="no function 'middle': it has"):
        evaluator.run({"x": x}, "middle")


def test_class_labels(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3))], opset_version=TARGETS[17])
    def program(x: Any) -> Any:
        return mb.softmax(x=x, axis=-1, name="probabilities")

    labels = ct.ClassifierConfig(["cat", "dog", "owl"], predicted_feature_name="label")
    path = convert(
        program, tmp_path / "model.mlpackage", classifier_config=labels, compute_precision=ct.precision.FLOAT32
    )
    outputs = load_evaluator(path).run({"x": np.array([[0, 2, 1]], np.float32)})
    assert outputs["label"] == "dog"
    (probabilities,) = [value for name, value in outputs.items() if name != "label"]
    same(probabilities, torch.softmax(torch.tensor([0.0, 2.0, 1.0]), 0))


def test_a_package_without_weights(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    refuses(copy, "weights/weight.bin are missing")


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_truncated_blob(kept: int, copy: Path) -> None:
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[:kept])
    refuses(copy, "weight")


def test_a_weight_that_is_not_at_its_place(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[64:68] = b"\0\0\0\0"
    (copy / WEIGHTS).write_bytes(bytes(content))
    refuses(copy, "is not at its place")


def test_a_linked_blob(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / WEIGHTS, tmp_path / "elsewhere.bin")
    (copy / WEIGHTS).symlink_to(tmp_path / "elsewhere.bin")
    refuses(copy, "outside the package")


@pytest.mark.parametrize("name", ["@model_path/../../x.bin", "/etc/passwd", "@model_path//etc/passwd"])
def test_weights_outside_the_package(name: str, copy: Path) -> None:
    def change(model: Any) -> None:
        for operation in main_block(model).operations:
            if operation.attributes["val"].WhichOneof("value") == "blobFileValue":
                operation.attributes["val"].blobFileValue.fileName = name

    refuses(edit(copy, change), "weights outside the package", name)


@pytest.mark.parametrize("path", ["../outside.mlmodel", "/etc/passwd", "com.apple.CoreML/../../../x", "a\\b"])
def test_a_manifest_that_points_outside(path: str, copy: Path) -> None:
    manifest = json.loads((copy / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (copy / "Manifest.json").write_text(json.dumps(manifest))
    refuses(copy, "names a file outside the package")


def test_a_linked_specification(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / SPEC, tmp_path / "elsewhere.mlmodel")
    (copy / SPEC).symlink_to(tmp_path / "elsewhere.mlmodel")
    refuses(copy, "symbolic link")


@pytest.mark.parametrize("content", ["", "{}", '{"itemInfoEntries": 3}', "[]", '{"itemInfoEntries": {"a": 1}}'])
def test_a_broken_manifest(content: str, copy: Path) -> None:
    (copy / "Manifest.json").write_text(content)
    refuses(copy, "Manifest.json is broken")


def test_no_package_at_all(tmp_path: Path) -> None:
    refuses(tmp_path / "none.mlpackage", "no Core ML package")
    (tmp_path / "file.mlmodel").write_bytes(b"x")
    refuses(tmp_path / "file.mlmodel", "no Core ML package")


def test_a_truncated_specification(copy: Path) -> None:
    content = (copy / SPEC).read_bytes()
    (copy / SPEC).write_bytes(content[: len(content) // 2])
    refuses(copy, "truncated")


def test_a_neural_network(copy: Path) -> None:
    model = Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.layers.add(name="layer")
    (copy / SPEC).write_bytes(model.SerializeToString())
    refuses(copy, "no ML program but a model of type neuralNetwork", "convert_to='mlprogram'")


def test_an_unknown_operation_is_named_with_its_place(copy: Path) -> None:
    def change(model: Any) -> None:
        (operation,) = [each for each in main_block(model).operations if each.type == "relu"]
        operation.type = "lstm"

    refuses(edit(copy, change), "does not evaluate the operation 'lstm'", "of function 'main', which writes")


def test_a_missing_value_is_an_error(copy: Path) -> None:
    def change(model: Any) -> None:
        (operation,) = [each for each in main_block(model).operations if each.type == "relu"]
        operation.inputs["x"].arguments[0].name = "nothing"

    with pytest.raises(MilError, match=r"'relu' .*there is no value 'nothing'"):
        load_evaluator(edit(copy, change)).run({"x": floats(2, 32)})


def test_a_shape_that_the_program_declares_wrongly_is_an_error(copy: Path) -> None:
    def change(model: Any) -> None:
        (operation,) = [each for each in main_block(model).operations if each.type == "relu"]
        operation.outputs[0].type.tensorType.dimensions[1].constant.size = 63

    with pytest.raises(MilError, match=r"\[2, 64\], the program declares \[2, 63\]"):
        load_evaluator(edit(copy, change)).run({"x": floats(2, 32)})


def test_image_inputs_are_refused(copy: Path) -> None:
    def change(model: Any) -> None:
        model.description.input[0].type.imageType.width = 3

    refuses(edit(copy, change), "'x' is of the type image")


def test_without_the_specification(copy: Path) -> None:
    (copy / SPEC).unlink()
    with pytest.raises(MilError, match="can't read"):
        open_package(copy)
