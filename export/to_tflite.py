"""Program → TFLite: through litert-torch, or through TensorFlow's own converter."""

import tempfile
from pathlib import Path
from typing import Any

from edgekit.program import Program

MODEL = "model.tflite"


def convert(program: Program, output: Path, *, scheme: str = "none") -> None:
    """Write `program` to `output` with all its signatures, their inputs and outputs named as there.

    `fp16` keeps the weights as float16 and computes in float32. Both routes write float32 first and share the pass
    that stores it as float16.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL if scheme != "none" else output
        if program.framework == "torch":
            _convert_torch(program, path)
        else:
            _convert_tensorflow(program, path)
        if any(signature.states for signature in program.signatures):
            _finish_writer(program, path)
        else:
            _simplify(path)
        if scheme == "fp16":
            compress_fp16(path, output)


def compress_fp16(source: Path, output: Path) -> None:
    """Write the float32 file `source` to `output` with its weights as float16."""
    from edgekit.export.tflite_float16 import store_as_float16

    store_as_float16(source, output)


def _simplify(path: Path) -> None:
    from edgekit.export.tflite_simplify import simplify

    simplify(path)


def _finish_writer(program: Program, path: Path) -> None:
    from edgekit.export.tflite_tied import finish_writer
    from edgekit.program import argument_name

    inputs = {spec.name for signature in program.signatures for spec in signature.inputs}
    finish_writer(path, {argument_name(name): name for name in inputs})


def _convert_torch(program: Program, output: Path) -> None:
    import litert_torch

    from edgekit.export.torch_modules import SignatureModule, example_inputs

    converter: Any = litert_torch
    for signature in program.signatures:
        module = SignatureModule(program, signature).eval()
        converter = converter.signature(signature.name, module, sample_kwargs=example_inputs(signature))
    converter.convert(strict_export=False).export(str(output))


def _convert_tensorflow(program: Program, output: Path) -> None:
    import tensorflow as tf

    from edgekit.export.tf_graphs import save_frozen

    with tempfile.TemporaryDirectory() as folder:
        save_frozen(program, Path(folder))
        names = [signature.name for signature in program.signatures]
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names)
        output.write_bytes(converter.convert())
