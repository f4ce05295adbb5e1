"""Model files that others wrote → Program: `.keras` files and SavedModel folders.

Files are hostile until they have been looked into: nothing in one is run that is not among the operations and classes
of Keras and TensorFlow themselves.
"""

import builtins
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import CheckpointError, RefusedError
from edgekit.extras import require
from edgekit.program import Program, SourceOptions, SourceRef, TensorSpec
from edgekit.sources.factory import parse_input, signature_of

#: files that edgekit has no kept converter from → why, and what to do
REFUSED = {
    ".pt": "it is a pickle, which can run code: load it in a function of yours and export package.module:function",
    ".pth": "it is a pickle, which can run code: load it in a function of yours and export package.module:function",
    ".bin": "it is a pickle, which can run code: save it as model.safetensors",
    ".h5": "HDF5 models can run code: load it with Keras and save it as .keras",
    ".hdf5": "HDF5 models can run code: load it with Keras and save it as .keras",
    ".pt2": "it is captured already, at its own shapes: export the checkpoint or function that it was made of",
    ".tflite": "there is no kept converter from TFLite: export the model that it was made of",
    ".mlpackage": "there is no kept converter from Core ML: export the model that it was made of",
    ".mlmodel": "there is no kept converter from Core ML: export the model that it was made of",
    ".onnx": "there is no kept converter from ONNX to other targets: export the model that it was made of",
}
#: operations of a SavedModel that reach outside of its graph
_UNSAFE = frozenset(
    [
        "ReadFile",
        "WriteFile",
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "MatchingFiles",
        "ReaderReadV2",
        "DebugIdentity",
    ]
)
_BUILTINS = ("keras", "keras.", "builtins")
_UNSAFE_LAYERS = ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def is_file_source(source: str) -> bool:
    """Whether a source is a model file of some kind, one that edgekit takes or refuses by name."""
    path = Path(source)
    return path.suffix in (".keras", *REFUSED) or (path / "saved_model.pb").is_file()


def file_source(source: str, inputs: list[str], *, trust_remote_code: bool = False) -> SourceRef:
    """Name a file, looked into without running anything.

    Raises RefusedError for a kind that there is no kept converter from, or one that holds code, CheckpointError for one
    that is missing or broken.
    """
    path = Path(source).expanduser()
    if path.suffix in REFUSED:
        raise RefusedError(f"{source} can't be exported: {REFUSED[path.suffix]}")
    if not path.exists():
        raise CheckpointError(f"there is no file {source}")
    for text in inputs:
        parse_input(text)
    if path.suffix == ".keras" and not trust_remote_code:
        _check_keras(path)
    return SourceRef(
        kind="file",
        path=str(path.absolute()),
        framework="tensorflow",
        task="custom",
        sha256=_sha256(path),
        options=SourceOptions(inputs=tuple(inputs), trust_remote_code=trust_remote_code),
    )


def build_file_program(source: SourceRef) -> Program:
    """Load the file in TensorFlow.

    Raises CheckpointError where it changed or can't be loaded, RefusedError for operations that reach outside.
    """
    path = Path(source.path)
    if _sha256(path) != source.sha256:
        raise CheckpointError(f"{path} has changed since this export began; start it again")
    require("tensorflow", f"loading {path.name}")
    return _keras_program(path, source) if path.suffix == ".keras" else _saved_program(path, source)


def _keras_program(path: Path, source: SourceRef) -> Program:
    import keras

    from edgekit.sources.live_keras import keras_program

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not source.options.trust_remote_code)
    except Exception as error:  # Keras 3.15 raises anything for a broken file
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"Keras can't load {path}: {first}") from error
    specs = tuple(parse_input(text)[0] for text in source.options.inputs) or tuple(_own_inputs(path, model))
    return keras_program(model, specs, path.name)


def _own_inputs(path: Path, model: Any) -> Iterator[TensorSpec]:
    """The model's own inputs for a batch of one; raises RefusedError where another size is not fixed."""
    for tensor in getattr(model, "inputs", None) or ():
        _, *shape = tensor.shape
        if None in shape:
            size = ",".join("128" if each is None else str(each) for each in (1, *shape))
            way = f"--input {tensor.name}:{tensor.dtype}[{size}]"
            raise RefusedError(f"{path.name} takes {tensor.name!r} of any length: fix it, as in {way}")
        dtype = "float32" if "float" in str(tensor.dtype) else "int32"
        yield TensorSpec.model_validate({"name": tensor.name, "dtype": dtype, "shape": (1, *shape)})


def _saved_program(path: Path, source: SourceRef) -> Program:
    import tensorflow as tf

    _check_saved_model(path)
    try:
        loaded = tf.saved_model.load(str(path))
        run = loaded.signatures["serving_default"]
    except Exception as error:  # TensorFlow 2.21 raises anything for a broken folder
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"TensorFlow can't load {path}, with the signature serving_default: {first}") from error
    given = {text.partition(":")[0]: parse_input(text)[0] for text in source.options.inputs}
    specs = tuple(
        given.get(name) or _fixed(path, name, spec) for name, spec in run.structured_input_signature[1].items()
    )
    module = SavedModule(loaded, run, tuple(spec.name for spec in specs))
    outputs = module.call(tuple(tf.zeros(spec.shape, spec.dtype) for spec in specs))
    signature = signature_of(specs, {name: value.numpy() for name, value in outputs.items()}, "call", path.name)
    return Program(framework="tensorflow", module=module, signatures=(signature,))


class SavedModule:
    """A SavedModel's default signature as a function of its inputs in order."""

    def __init__(self, loaded: Any, run: Any, names: tuple[str, ...]) -> None:
        self.loaded, self.run, self.names = loaded, run, names

    @property
    def trainable_weights(self) -> list[Any]:
        """The model's variables, to be counted."""
        return list(self.run.variables)

    def __call__(self, inputs: tuple[Any, ...], training: bool = False) -> tuple[Any, ...]:
        """The outputs of a tuple of inputs."""
        del training
        return tuple(self.call(inputs).values())

    def call(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """The outputs by name, in the order of the names."""
        outputs = self.run(**dict(zip(self.names, inputs, strict=True)))
        return {name: outputs[name] for name in sorted(outputs)}


def _fixed(path: Path, name: str, spec: Any) -> TensorSpec:
    shape = [1 if index == 0 and size is None else size for index, size in enumerate(spec.shape)]
    if None in shape:
        size = ",".join("128" if each is None else str(each) for each in shape)
        raise RefusedError(f"{path.name} takes {name!r} of any length: fix it, as in --input {name}:int32[{size}]")
    dtype = {"float32": "float32", "int32": "int32"}.get(spec.dtype.name)
    if dtype is None:
        raise RefusedError(f"{path.name} takes {name!r} as {spec.dtype.name}: edgekit exports int32 and float32 inputs")
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": tuple(shape)})


def _check_saved_model(path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in model.meta_graphs]
    used = {node.op for graph in graphs for node in graph.node}
    used |= {node.op for graph in graphs for function in graph.library.function for node in function.node_def}
    if found := sorted(used & _UNSAFE):
        raise RefusedError(
            f"{path} holds the operation {found[0]}, which reaches outside of the model: it is not loaded"
        )


def _check_keras(path: Path) -> None:
    """Refuse a .keras file with classes that are not Keras' own, before anything of it is built."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is truncated or no .keras file") from error
    for name, module in _classes(config):
        unknown = not (module in _BUILTINS or module.startswith(_BUILTINS[1]))
        if unknown or name in _UNSAFE_LAYERS or (module == "builtins" and hasattr(builtins, name)):
            raise RefusedError(
                f"{path} needs {module}.{name}, which is not a class of Keras' own, or runs code: load it in a "
                "function of yours and export package.module:function"
            )


def _classes(config: Any) -> Iterator[tuple[str, str]]:
    """Every class that a serialized configuration names, and its module."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str) and "config" in config:
            yield config["class_name"], str(config.get("module") or "builtins")
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
        if file.is_file():
            digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
