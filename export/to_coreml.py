"""Program → Core ML: an ML program package for iOS 17 and macOS 14, through torch.export or a concrete function."""

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np

from edgekit.errors import RefusedError
from edgekit.program import Program, Signature

_DEBUG = "executorch_debug_handle_mapping.json"  # coremltools 9.0 adds it for ExecuTorch; Core ML does not read it
_DATE = "com.github.apple.coremltools.conversion_date"


def convert(program: Program, output: Path, *, scheme: str = "none") -> None:
    """Write `program` to the folder `output` (.mlpackage), inputs and outputs named and typed as its signature.

    `fp16` has float16 weights and arithmetic; `none` float32, which is not coremltools' default. Raises RefusedError
    for several signatures.
    """
    if len(program.signatures) != 1:
        raise RefusedError("a Core ML package holds one signature here; this program has several")
    signature = program.signatures[0]
    route = _convert_torch if program.framework == "torch" else _convert_tensorflow
    precision = ct.precision.FLOAT16 if scheme == "fp16" else ct.precision.FLOAT32
    model = route(program, signature, precision)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.mlpackage"
        model.save(str(package))
        make_reproducible(package)
        shutil.copytree(package, output, copy_function=shutil.copyfile)


def make_reproducible(package: Path) -> None:
    """Make a package's bytes follow from its content: no date, no random ids, sorted maps, ordinary file modes."""
    spec_path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.proto.Model_pb2.Model.FromString(spec_path.read_bytes())
    spec.description.metadata.userDefined.pop(_DATE, None)
    spec_path.write_bytes(spec.SerializeToString(deterministic=True))
    (package / _DEBUG).unlink(missing_ok=True)
    manifest_path = package / "Manifest.json"
    manifest = json.loads(manifest_path.read_text())
    new_ids = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for old, entry in manifest["itemInfoEntries"].items()
    }
    manifest["itemInfoEntries"] = {new_ids[old]: e for old, e in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = new_ids[manifest["rootModelIdentifier"]]
    manifest_path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def _convert_torch(program: Program, signature: Signature, precision: Any) -> Any:
    from edgekit.export.torch_modules import captured

    exported = captured(program, signature).run_decompositions({})
    outputs = [ct.TensorType(name=spec.name, dtype=np.float32) for spec in signature.outputs]
    return ct.convert(exported, inputs=_inputs(signature), outputs=outputs, **_options(precision))


def _convert_tensorflow(program: Program, signature: Signature, precision: Any) -> Any:
    from edgekit.export.tf_graphs import signature_function

    concrete = signature_function(program, signature).get_concrete_function()
    # A concrete function's outputs are its tensors in the order of their sorted names.
    given = [tensor.name.split(":")[0] for tensor in concrete.outputs]
    outputs = [ct.TensorType(name=name, dtype=np.float32) for name in given]
    model = ct.convert(
        [concrete], source="tensorflow", inputs=_inputs(signature), outputs=outputs, **_options(precision)
    )
    spec = model.get_spec()
    for old, new in zip(given, sorted(spec.name for spec in signature.outputs), strict=True):
        ct.utils.rename_feature(spec, old, new)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _inputs(signature: Signature) -> list[Any]:
    return [ct.TensorType(name=spec.name, shape=spec.shape, dtype=np.int32) for spec in signature.inputs]


def _options(precision: Any) -> dict[str, Any]:
    return {
        "convert_to": "mlprogram",
        "minimum_deployment_target": ct.target.iOS17,
        "compute_precision": precision,
        "skip_model_load": True,
    }
