"""Program → Core ML: an ML program package, through torch.export, a trace, or a concrete function of TensorFlow."""

import json
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import RefusedError
from edgekit.export.coreml_metadata import describe_package
from edgekit.export.coreml_options import DEFAULTS, CoremlOptions
from edgekit.export.coreml_workarounds import workarounds
from edgekit.export.jobs import Evidence
from edgekit.extras import require
from edgekit.program import Program, Signature, TensorSpec

Shapes = dict[str, list[tuple[int, ...]]]  # input → its enumerated shapes, the default first

ct = require("coremltools", "exporting to Core ML")

_DEBUG = "executorch_debug_handle_mapping.json"  # coremltools 9.0 adds it for ExecuTorch; Core ML does not read it
_DATE = "com.github.apple.coremltools.conversion_date"


def convert(
    program: Program, output: Path, *, scheme: str = "none", options: CoremlOptions = DEFAULTS
) -> Evidence | None:
    """Write `program` to the folder `output` (.mlpackage), inputs and outputs named and typed as its signature.

    Before iOS 18 several signatures become a folder of packages of their names, each with weights of its own.

    `fp16` has float16 weights and arithmetic; `none` float32, which is not coremltools' default. Several signatures
    become functions of their names over one copy of the weights, each in `scheme`; the first is the default.
    Raises RefusedError for a quantized scheme of a single signature: it is made of the float32 package.
    """
    if len(program.signatures) > 1 and options.target != "iOS18":
        output.mkdir()
        for signature in program.signatures:
            alone = replace(program, signatures=(signature,))
            convert(alone, output / f"{signature.name}.mlpackage", scheme=scheme, options=options)
        return None
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.mlpackage"
        if len(program.signatures) > 1:
            evidence = _convert_functions(program, package, scheme, options)
        elif scheme in ("none", "fp16"):
            evidence = _convert_signature(program, program.signatures[0], package, scheme, options)
        else:
            raise RefusedError(f"{scheme} is made of a float32 package, not converted")
        describe_package(package, options, scheme)
        make_reproducible(package)
        shutil.copytree(package, output, copy_function=shutil.copyfile)
    return evidence


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


def _convert_functions(program: Program, package: Path, scheme: str, options: CoremlOptions) -> Evidence | None:
    """One function for each signature; what the scheme took on is told of the default one, and checked in all."""
    from edgekit.export.quantize import for_coreml
    from edgekit.export.quantize.mixture import Mixture

    functions, evidences = ct.utils.MultiFunctionDescriptor(), []
    for signature in program.signatures:
        made = package.with_name(f"{signature.name}.mlpackage")
        precision = "fp16" if scheme == "fp16" else "none"
        evidence = _convert_signature(program, signature, made, precision, options)
        if scheme not in ("none", "fp16"):
            float32, made = made, made.with_name(f"{signature.name}-{scheme}.mlpackage")
            evidence = for_coreml.compress(float32, made, Mixture(scheme=scheme), None)
        functions.add_function(str(made), src_function_name="main", target_function_name=signature.name)
        evidences.append(evidence)
    functions.default_function_name = program.signatures[0].name
    with workarounds(program.framework):
        ct.utils.save_multifunction(functions, str(package))
    return evidences[0]


def _convert_signature(
    program: Program, signature: Signature, package: Path, scheme: str, options: CoremlOptions
) -> Evidence | None:
    lengths = () if options.multifunction else options.sequence_lengths[::-1]  # the longest is the default
    shapes: Shapes = {
        spec.name: [(spec.shape[0], length) for length in lengths] for spec in signature.inputs if len(lengths) > 1
    }
    route = _convert_torch if program.framework == "torch" else _convert_tensorflow
    route(program, signature, shapes, options.target, scheme).save(str(package))
    return None


def _convert_torch(program: Program, signature: Signature, shapes: Shapes, target: str, scheme: str) -> Any:
    from edgekit.export.coreml_torch import convert_torch_module
    from edgekit.export.torch_modules import SignatureModule, StatefulModule, example_inputs, free_outputs

    module = (StatefulModule if signature.stateful else SignatureModule)(program, signature)
    return convert_torch_module(
        module,
        example_inputs(signature),
        output_names=[spec.name for spec in free_outputs(signature)],
        minimum_deployment_target=target,
        precision="fp16" if scheme == "fp16" else "fp32",
        shapes=shapes,
        captures=("export",) if signature.stateful else ("export", "trace"),
    )


def _convert_tensorflow(program: Program, signature: Signature, shapes: Shapes, target: str, scheme: str) -> Any:
    from edgekit.export.tf_graphs import signature_function

    concrete = signature_function(program, signature, flexible=tuple(shapes)).get_concrete_function()
    # A concrete function's outputs are its tensors in the order of their sorted names.
    given = [tensor.name.split(":")[0] for tensor in concrete.outputs]
    with workarounds("tensorflow"):
        model = ct.convert(
            [concrete],
            source="tensorflow",
            inputs=[_input(spec, shapes.get(spec.name, [])) for spec in signature.inputs],
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in given],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=ct.precision.FLOAT16 if scheme == "fp16" else ct.precision.FLOAT32,
            skip_model_load=True,
        )
    spec = model.get_spec()
    for old, new in zip(given, sorted(spec.name for spec in signature.outputs), strict=True):
        ct.utils.rename_feature(spec, old, new)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _input(spec: TensorSpec, shapes: Sequence[tuple[int, ...]]) -> Any:
    shape = ct.EnumeratedShapes(shapes=list(shapes), default=shapes[0]) if shapes else spec.shape
    return ct.TensorType(name=spec.name, shape=shape, dtype=np.dtype(spec.dtype).type)
