"""Accelerators: which runtime offers which, how a bundle is run for one, and whether it fell back.

What is not in `OFFERED` is refused by name, never run on something else.
"""

from dataclasses import dataclass

from edgekit.bundle import Manifest
from edgekit.devices.compiled import check_compiled
from edgekit.environments import SEPARATE
from edgekit.errors import RefusedError, UnknownNameError
from edgekit.measurement import ACCELERATORS, Accelerator, Coverage, DeviceFacts

#: the runtime of Google's command-line tool, for phones without Python
BENCHMARK_MODEL = "benchmark_model"
_DELEGATED: tuple[Accelerator, ...] = ("cpu", "gpu", "npu", "nnapi", "edgetpu")
#: runtime → accelerators that edgekit can run it on
OFFERED: dict[str, tuple[Accelerator, ...]] = {
    "litert": _DELEGATED,  # all but the CPU by an external delegate
    "litert-compiled": ("cpu", "gpu"),
    "litert-openvino": ("cpu", "npu"),
    "tflite-runtime": _DELEGATED,
    BENCHMARK_MODEL: ("cpu", "gpu", "nnapi"),
    "onnxruntime": ("cpu",),
    "onnxruntime-qnn": ("cpu", "npu"),
    "onnxruntime-webgpu": ("cpu", "gpu"),
    "onnxruntime-openvino": ("cpu", "npu"),
    "coreml": ("cpu", "coreml"),
    "tensorflow": ("cpu",),
    "torch": ("cpu",),
}
#: target → runtimes that run its files, the one that is taken first
RUNTIMES: dict[str, tuple[str, ...]] = {
    "tflite": ("litert", "tflite-runtime", "litert-compiled", "litert-openvino", BENCHMARK_MODEL),
    "onnx": ("onnxruntime", "onnxruntime-qnn", "onnxruntime-openvino", "onnxruntime-webgpu"),
    "coreml": ("coreml",),
    "savedmodel": ("tensorflow",),
    "pt2": ("torch",),
}
#: accelerators whose delegate needs no path: its name is the same everywhere
NAMED_DELEGATES = ("edgetpu",)
#: runtimes that come in the package of another
_SAME_PACKAGE = {"litert-compiled": "litert"}
#: keeps one copy of the weights in memory for all signatures of a file
_SHARING = "litert-compiled"
_ADVICE = "`edgekit devices setup NAME` brings one to a board; for phones without Python give --benchmark-model"
NNAPI_ADVICE = (
    "NNAPI is deprecated since Android 15: on newer phones use the vendor's own path (Qualcomm: an .onnx bundle with "
    "--accelerator npu --runtime onnxruntime-qnn; others: LiteRT's NPU accelerators)"
)
#: an accelerator that took fewer than half of the nodes did not do the work that was asked of it
MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """How a bundle is run on a device: the runtime, the accelerator, and the interpreter that starts the runner.

    `python` is "" where Google's benchmark_model runs it.
    """

    runtime: str
    accelerator: Accelerator
    python: str = ""


def plan_run(
    manifest: Manifest,
    facts: DeviceFacts,
    *,
    accelerator: str,
    runtime: str | None = None,
    has_tool: bool = False,
    delegate: str = "",
) -> RunPlan:
    """Choose the runtime for a bundle on a device with these facts, or check the one that was asked for.

    Raises UnknownNameError for names that do not exist, RefusedError (by name, with what to do) for what this target,
    runtime or device has not.
    """
    if accelerator not in ACCELERATORS:
        raise UnknownNameError("accelerator", accelerator, ACCELERATORS)
    check_compiled(manifest, facts, accelerator)
    known = RUNTIMES.get(manifest.target, ())
    if not known:
        raise RefusedError(f"{manifest.target} files are not run on devices yet (asked for: {facts.address})")
    if runtime is not None and runtime not in OFFERED:
        raise UnknownNameError("runtime", runtime, OFFERED)
    if runtime is not None and runtime not in known:
        raise RefusedError(f"{runtime} does not run {manifest.target} files: {', '.join(known)} does")
    _check_nnapi(accelerator, facts)
    wanted = _typed(accelerator)
    chosen = runtime or _choose(manifest, facts, wanted, has_tool=has_tool, delegate=delegate)
    if wanted not in OFFERED[chosen]:
        offered = ", ".join(OFFERED[chosen])
        where = f"{manifest.target} files on {facts.address} (runtime {chosen})"
        raise RefusedError(f"{accelerator} is not offered for {where}: use --accelerator {offered}")
    if chosen == BENCHMARK_MODEL:
        if not has_tool:
            raise RefusedError("give the path of Google's benchmark_model for that device with --benchmark-model")
        return RunPlan(runtime=chosen, accelerator=wanted)
    if not _has_delegate(chosen, wanted, delegate):
        raise RefusedError(
            f"{chosen} needs a delegate for {accelerator}: give its library's path on {facts.address} with --delegate"
        )
    return RunPlan(runtime=chosen, accelerator=wanted, python=_python(chosen, facts))


def fallen_back(accelerator: Accelerator, coverage: Coverage) -> str:
    """The sentence that says that the accelerator did not do the work that was asked of it; "" where it did.

    The CPU always does its own work. Everything else has to be told of by the runtime, and to take most of the nodes.
    """
    if accelerator == "cpu":
        return ""
    took, nodes = coverage.nodes_on_accelerator, coverage.nodes
    why = f": {coverage.note}" if coverage.note else ""
    if took is None:
        return f"{accelerator} was asked for, and nothing tells that it took a node (it ran on {coverage.actual}){why}"
    if took == 0:
        of = f"none of {nodes} nodes" if nodes else "no node"
        return f"{accelerator} was asked for and took {of}, all ran on the CPU{why}"
    if nodes and took < MOST * nodes:
        return f"{accelerator} was asked for and took {took} of {nodes} nodes: most of it ran on the CPU{why}"
    return ""


def describe_coverage(accelerator: Accelerator, coverage: Coverage) -> str:
    """What an accelerator took, in how many partitions, and each operator that it left to the CPU with the reason."""
    parts = "" if coverage.partitions is None else f" in {coverage.partitions} partition"
    parts += "s" if parts and coverage.partitions != 1 else ""
    took = f"{accelerator} ({coverage.actual}) took {coverage.nodes_on_accelerator} of {coverage.nodes} nodes{parts}"
    left = ", ".join(
        f"{each.count} {each.operator}{f' ({each.reason})' if each.reason else ''}" for each in coverage.left_behind
    )
    return "; ".join(filter(None, (took, left and f"left to the CPU: {left}", coverage.note)))


def _check_nnapi(accelerator: str, facts: DeviceFacts) -> None:
    if accelerator == "nnapi" and "nnapi" not in facts.accelerators:
        raise RefusedError(f"{facts.address} has no NNAPI: phones with Android 8.1 or later have it. {NNAPI_ADVICE}")


def _python(runtime: str, facts: DeviceFacts) -> str:
    """The interpreter that runs a runtime on a device; raises RefusedError where there is none."""
    if runtime in SEPARATE:
        if runtime not in facts.environments:
            setup = f"edgekit devices setup {facts.address} --runtime {runtime}"
            raise RefusedError(f"{runtime} needs an environment of its own on {facts.address}: {setup}")
        return facts.environments[runtime]
    if facts.python is None:
        raise RefusedError(f"{facts.address} has no Python, which {runtime} needs: {_ADVICE}")
    return facts.python


def _has_delegate(runtime: str, accelerator: Accelerator, delegate: str) -> bool:
    """Whether a runtime that needs a delegate for an accelerator has one; True for those that need none."""
    needed = runtime in ("litert", "tflite-runtime") and accelerator not in ("cpu", *NAMED_DELEGATES)
    return bool(delegate) or not needed


def _choose(manifest: Manifest, facts: DeviceFacts, accelerator: Accelerator, *, has_tool: bool, delegate: str) -> str:
    """The first runtime of the target that the device has and that offers the accelerator.

    That of the bundle's proof comes first where it shares the weights of signatures.
    """
    target = manifest.target
    known = RUNTIMES[target]
    if manifest.runtime == _SHARING and _SHARING in facts.runtimes:
        known = (_SHARING, *(name for name in known if name != _SHARING))
    able = [name for name in known if accelerator in OFFERED[name] and _has_delegate(name, accelerator, delegate)]
    for name in able:
        there = name in facts.environments or (name not in SEPARATE and _SAME_PACKAGE.get(name, name) in facts.runtimes)
        if name != BENCHMARK_MODEL and there and (facts.python or name in facts.environments):
            return name
    if has_tool and BENCHMARK_MODEL in able:
        return BENCHMARK_MODEL
    if target == "coreml":
        raise RefusedError(f"{facts.address} runs no Core ML: bench such bundles on a Mac with coremltools")
    if not able:
        offered = ", ".join(dict.fromkeys(each for name in known for each in OFFERED[name]))
        raise RefusedError(f"{accelerator} is not offered for {target} files: use --accelerator {offered}")
    if facts.python and accelerator != "cpu" and (separate := next((name for name in able if name in SEPARATE), None)):
        _python(separate, facts)
    if facts.python is None and BENCHMARK_MODEL not in known:
        tool = "Google's benchmark_model runs TFLite files only"
        raise RefusedError(f"{target} files can't be run on {facts.address}: it has no Python, and {tool}")
    if target in ("savedmodel", "pt2") and facts.python:
        return known[0]  # whether it is there, its runner says
    raise RefusedError(f"{facts.address} has no runtime for {target} files ({', '.join(able)}): {_ADVICE}")


def _typed(accelerator: str) -> Accelerator:
    return next(known for known in ACCELERATORS if known == accelerator)
