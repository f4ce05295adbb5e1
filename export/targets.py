"""The targets of `--target`: their files, runtimes, and the routes that lead to them."""

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import UnknownNameError
from edgekit.program import FRAMEWORKS, Framework


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of exported file.

    `routes` are the frameworks it can be reached through, the default first; `modules` what each route needs;
    `runtime` what the runner loads it with, `runtime_module` what that needs; off a Mac, edgekit itself evaluates what
    has the `runtime` "coreml". `converted` schemes are written by the converter; all others are made from the float32
    file, which they share. Several sequence `lengths` become signatures over one copy of the weights, or one signature
    that takes any length; those of Core ML are in its options. `shared_runtime` runs files of several signatures.
    """

    name: str
    file: str
    runtime: str
    runtime_module: str
    routes: dict[Framework, tuple[str, ...]]
    converted: tuple[str, ...] = ("none",)
    reference: bool = False
    lengths: Literal["signatures", "dynamic", "options", "one"] = "signatures"
    shared_runtime: str = ""

    @property
    def default_route(self) -> Framework:
        """The better route, as measured (README, "Routes")."""
        return next(iter(self.routes))


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="tflite",
            file="model.tflite",
            runtime="litert",
            runtime_module="ai_edge_litert",
            routes={"torch": ("torch", "litert_torch"), "tensorflow": ("tensorflow", "keras")},
            shared_runtime="litert-compiled",
        ),
        Target(
            name="onnx",
            file="model.onnx",
            runtime="onnxruntime",
            runtime_module="onnxruntime",
            routes={
                "torch": ("torch", "onnx", "onnxscript"),
                "tensorflow": ("tensorflow", "keras", "onnx", "tf2onnx"),
            },
            lengths="dynamic",
        ),
        Target(
            name="coreml",
            file="model.mlpackage",
            runtime="coreml",
            runtime_module="coremltools",
            routes={"torch": ("torch", "coremltools"), "tensorflow": ("tensorflow", "keras", "coremltools")},
            converted=("none", "fp16"),
            lengths="options",
        ),
        Target(
            name="savedmodel",
            file="savedmodel",
            runtime="tensorflow",
            runtime_module="tensorflow",
            routes={"tensorflow": ("tensorflow", "keras")},
            reference=True,
            lengths="dynamic",
        ),
        Target(
            name="pt2",
            file="model.pt2",
            runtime="torch",
            runtime_module="torch",
            routes={"torch": ("torch",)},
            reference=True,
            lengths="one",
        ),
    )
}
#: what `--target all` means: the files for devices, without the references for servers
ALL = tuple(name for name, target in TARGETS.items() if not target.reference)


def find_targets(names: list[str]) -> list[Target]:
    """The targets of these names, in order and once each; `all` is every target for devices.

    Raises UnknownNameError, which names the nearest.
    """
    wanted: dict[str, Target] = {}
    for name in names:
        for each in ALL if name == "all" else (name,):
            if each not in TARGETS:
                raise UnknownNameError("target", each, [*TARGETS, "all"])
            wanted[each] = TARGETS[each]
    return list(wanted.values())


def find_frameworks(names: list[str]) -> list[Framework]:
    """The frameworks of these names (`--via`); raises UnknownNameError, which names the nearest."""
    for name in names:
        if name not in FRAMEWORKS:
            raise UnknownNameError("framework", name, FRAMEWORKS)
    return [framework for framework in FRAMEWORKS if framework in names]
