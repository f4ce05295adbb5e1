"""Environments of their own for runtimes that can't live beside others: where they are, on any machine.

onnxruntime and its provider packages install into the same folder, and the last one wins silently.
`edgekit devices setup DEVICE --runtime NAME` makes them.
"""

from pathlib import Path

#: the folder of the environment that runs what needs none of its own, below the home folder
SHARED = ".edgekit/env"
#: runtimes that have an environment of their own
SEPARATE = ("onnxruntime-qnn", "onnxruntime-webgpu", "onnxruntime-openvino", "litert-openvino")


def environment_folder(runtime: str) -> str:
    """The folder of a runtime's environment, below the home folder of the machine that it is on."""
    return f"{SHARED}-{runtime}" if runtime in SEPARATE else SHARED


def environment_python(runtime: str) -> Path | None:
    """The interpreter of a runtime's own environment on this machine; None where it was not set up."""
    python = Path.home() / environment_folder(runtime) / "bin" / "python"
    return python if python.exists() else None
