"""Optional libraries: which extra brings which module, and a clear error where one is missing."""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Collection
from types import ModuleType

#: module → (extra that brings it, distribution names under which it may be installed)
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("torch", ("torch",)),
    "tensorflow": ("tensorflow", ("tensorflow-cpu", "tensorflow")),
    "keras": ("tensorflow", ("keras",)),
    "litert_torch": ("tflite", ("litert-torch",)),
    "ai_edge_litert": ("devices", ("ai-edge-litert",)),
    "ai_edge_quantizer": ("tflite", ("ai-edge-quantizer",)),
    "onnx": ("onnx", ("onnx",)),
    "onnxruntime": ("onnx", ("onnxruntime",)),
    "onnxscript": ("onnx", ("onnxscript",)),
    "tf2onnx": ("onnx", ("tf2onnx",)),
    "coremltools": ("coreml", ("coremltools",)),
    "torchao": ("qat", ("torchao",)),
    "transformers": ("huggingface", ("transformers",)),
    "huggingface_hub": ("huggingface", ("huggingface-hub",)),
    "ethosu": ("ethos-u", ("ethos-u-vela",)),
    "ray": ("ray", ("ray",)),
    "polib": ("data", ("polib",)),
    "django": ("data", ("Django",)),
    "pyarrow": ("data", ("pyarrow",)),
    "tensorboard": ("data", ("tensorboard",)),
    "sacrebleu": ("data", ("sacrebleu",)),
    "psycopg": ("postgresql", ("psycopg",)),
}


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def installed_version(module: str) -> str | None:
    """The version of the distribution that brings `module`, or None where it is not installed."""
    for distribution in EXTRAS[module][1]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def require(module: str, needed_for: str) -> ModuleType:
    """Import an optional module.

    Raises MissingExtraError, which names the extra, where it is not installed.
    """
    from edgekit.errors import MissingExtraError

    check_installed((module,), needed_for)
    if module == "coremltools":
        _hush_coremltools()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, EXTRAS[module][0], needed_for) from error


def _hush_coremltools() -> None:
    """Before its import: coremltools 9.0 warns of untested versions and its missing macOS library.

    It imports TensorFlow and torchao where they are installed, which have remarks of their own.
    """
    for name in ("coremltools", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def skip_frameworks(but: Collection[str] = ()) -> None:
    """Before coremltools is imported: 9.0 imports these where they are installed, 7 s, and all `but` those in vain.

    Nothing can import them afterwards. Without torch or tensorflow, coremltools converts nothing of theirs; it reads
    packages and compresses weights. scikit-learn it takes up to 1.5 only, and not for weights.
    """
    for name in {"sklearn", "tensorflow", "torch", "torchao", "transformers"} - set(but):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # an import of it raises ImportError


def check_installed(modules: tuple[str, ...], needed_for: str) -> None:
    """Raise MissingExtraError for the first of `modules` that is not installed; import none."""
    from edgekit.errors import MissingExtraError

    for module in modules:
        if not is_installed(module):
            raise MissingExtraError(module, EXTRAS[module][0], needed_for)
