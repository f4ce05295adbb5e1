"""Accelerators: which runtime offers which, how a bundle is run for one, and whether it fell back.

What is not in `OFFERED` is refused by name, never run on something else.
"""

from dataclasses import dataclass

from edgekit.bundle import Manifest
from edgekit.errors import RefusedError, UnknownNameError
from edgekit.measurement import ACCELERATORS, Accelerator, Coverage, DeviceFacts

#: the runtime of Google's command-line tool, for phones without Python
BENCHMARK_MODEL = "benchmark_model"
#: runtime → accelerators that edgekit can run it on
OFFERED: dict[str, tuple[Accelerator, ...]] = {
    "litert": ("cpu",),
    "litert-compiled": ("cpu",),
    "tflite-runtime": ("cpu",),
    BENCHMARK_MODEL: ("cpu",),
    "onnxruntime": ("cpu",),
    "coreml": ("cpu", "coreml"),
    "tensorflow": ("cpu",),
    "torch": ("cpu",),
}
#: target → runtimes that run its files, the one that is taken first
RUNTIMES: dict[str, tuple[str, ...]] = {
    "tflite": ("litert", "tflite-runtime", "litert-compiled", BENCHMARK_MODEL),
    "onnx": ("onnxruntime",),
    "coreml": ("coreml",),
    "savedmodel": ("tensorflow",),
    "pt2": ("torch",),
}
#: keeps one copy of the weights in memory for all signatures of a file
_SHARING = "litert-compiled"
_ADVICE = "`edgekit devices setup NAME` brings one to a board; for phones without Python give --benchmark-model"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """How a bundle is run on a device: the runtime, the accelerator, and the interpreter that starts the runner.

    `python` is "" where Google's benchmark_model runs it.
    """

    runtime: str
    accelerator: Accelerator
    python: str = ""


def plan_run(
    manifest: Manifest, facts: DeviceFacts, *, accelerator: str, runtime: str | None = None, has_tool: bool = False
) -> RunPlan:
    """Choose the runtime for a bundle on a device with these facts, or check the one that was asked for.

    Raises UnknownNameError for names that do not exist, RefusedError (by name, with what to do) for what this target,
    runtime or device has not.
    """
    if accelerator not in ACCELERATORS:
        raise UnknownNameError("accelerator", accelerator, ACCELERATORS)
    known = RUNTIMES.get(manifest.target, ())
    if not known:
        raise RefusedError(f"{manifest.target} files are not run on devices yet (asked for: {facts.address})")
    if runtime is not None and runtime not in OFFERED:
        raise UnknownNameError("runtime", runtime, OFFERED)
    if runtime is not None and runtime not in known:
        raise RefusedError(f"{runtime} does not run {manifest.target} files: {', '.join(known)} does")
    chosen = runtime or _choose(manifest, facts, has_tool=has_tool)
    if accelerator not in OFFERED[chosen]:
        offered = ", ".join(OFFERED[chosen])
        where = f"{manifest.target} files on {facts.address} (runtime {chosen})"
        raise RefusedError(f"{accelerator} is not offered yet for {where}: use --accelerator {offered}")
    if chosen == BENCHMARK_MODEL:
        if not has_tool:
            raise RefusedError("give the path of Google's benchmark_model for that device with --benchmark-model")
        return RunPlan(runtime=chosen, accelerator=_typed(accelerator))
    if facts.python is None:
        raise RefusedError(f"{facts.address} has no Python, which {chosen} needs: {_ADVICE}")
    return RunPlan(runtime=chosen, accelerator=_typed(accelerator), python=facts.python)


def fallen_back(accelerator: Accelerator, coverage: Coverage) -> str:
    """The sentence that says that the accelerator did not take the work that was asked of it; "" where it did.

    The CPU always does its own work. Everything else has to be told of by the runtime.
    """
    if accelerator == "cpu":
        return ""
    if coverage.nodes_on_accelerator is None:
        return f"{accelerator} was asked for, and nothing tells that it took a node (it ran on {coverage.actual})"
    if coverage.nodes_on_accelerator == 0:
        return f"{accelerator} was asked for and took none of {coverage.nodes} nodes: all ran on the CPU"
    return ""


def _choose(manifest: Manifest, facts: DeviceFacts, *, has_tool: bool) -> str:
    """The first runtime of the target that the device has: that of its proof, where that shares signatures' weights."""
    target = manifest.target
    known = RUNTIMES[target]
    if manifest.runtime == _SHARING:
        known = (_SHARING, *(name for name in known if name != _SHARING))
    here = [name for name in known if name in facts.runtimes and name != BENCHMARK_MODEL]
    if here and facts.python:
        return here[0]
    if has_tool and BENCHMARK_MODEL in known:
        return BENCHMARK_MODEL
    if target == "coreml":
        raise RefusedError(f"{facts.address} runs no Core ML: bench such bundles on a Mac with coremltools")
    if facts.python is None and BENCHMARK_MODEL not in known:
        tool = "Google's benchmark_model runs TFLite files only"
        raise RefusedError(f"{target} files can't be run on {facts.address}: it has no Python, and {tool}")
    if target in ("savedmodel", "pt2") and facts.python:
        return known[0]  # whether it is there, its runner says
    raise RefusedError(f"{facts.address} has no runtime for {target} files ({', '.join(known)}): {_ADVICE}")


def _typed(accelerator: str) -> Accelerator:
    return next(known for known in ACCELERATORS if known == accelerator)
