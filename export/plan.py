"""What an export will do, decided before any framework is loaded: routes, schemes, sizes and refusals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import extras
from edgekit.bundle import MANIFEST, SUFFIX
from edgekit.errors import EdgekitError, RefusedError
from edgekit.export.coreml_options import DEFAULTS, CoremlOptions
from edgekit.export.schemes import BYTES_PER_WEIGHT, check_scheme, refusal
from edgekit.export.targets import Target, find_frameworks, find_targets
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.outputs import check_replaceable
from edgekit.program import Framework


@dataclass(frozen=True, kw_only=True)
class PlannedExport:
    """One bundle to be made: where from, by which route, and where to.

    `expected_size_bytes` counts the weights only; `problem` is why it can't be made, if so; `coreml` are the options of
    a Core ML package.
    """

    target: Target
    route: Framework
    scheme: str
    path: Path
    expected_size_bytes: int
    problem: EdgekitError | None
    coreml: CoremlOptions | None = None

    @property
    def name(self) -> str:
        """The bundle's name without its suffix."""
        return self.path.name.removesuffix(SUFFIX)


def plan_exports(
    model_name: str,
    config: TransformerConfig,
    *,
    targets: Sequence[str],
    schemes: Sequence[str] = ("none",),
    via: Sequence[str] = (),
    output: Path = Path("bundles"),
    force: bool = False,
    coreml: CoremlOptions = DEFAULTS,
) -> list[PlannedExport]:
    """List the bundles that these options ask for, each with what stands in its way.

    Without `via` each target takes its default route. Raises UnknownNameError for a name that does not exist,
    RefusedError for options of `coreml` that the targets have no use for.
    """
    frameworks = find_frameworks(list(via))
    found = find_targets(list(targets))
    _check_used(coreml, found)
    plans = []
    for target in found:
        for route in frameworks or [target.default_route]:
            for scheme in dict.fromkeys(check_scheme(name) for name in schemes):
                suffix = "" if route == target.default_route else f"-via-{route}"
                path = output / f"{model_name}.{target.name}-{scheme}{suffix}{SUFFIX}"
                plans.append(
                    PlannedExport(
                        target=target,
                        route=route,
                        scheme=scheme,
                        path=path,
                        expected_size_bytes=round(parameter_count(config) * BYTES_PER_WEIGHT[scheme]),
                        problem=_unfit(coreml, target, scheme, config.max_length)
                        or _problem(target, route, scheme, path, force=force),
                        coreml=coreml if target.name == "coreml" else None,
                    )
                )
    return plans


def _check_used(coreml: CoremlOptions, targets: Sequence[Target]) -> None:
    """Refuse options of Core ML where no target is, and lengths where any other target would go without."""
    others = [target.name for target in targets if target.name != "coreml"]
    if coreml.asked and len(others) == len(targets):
        raise RefusedError(f"{coreml.flags()[0]} has no use for {', '.join(others)}: it is of --target coreml")
    if coreml.sequence_lengths and others:
        raise RefusedError(f"--sequence-length is offered for --target coreml only: {', '.join(others)} can't take it")


def _unfit(coreml: CoremlOptions, target: Target, scheme: str, longest: int) -> EdgekitError | None:
    refused = coreml.refusal(scheme, longest) if target.name == "coreml" else None
    return RefusedError(f"coreml: {refused}") if refused else None


def _problem(target: Target, route: Framework, scheme: str, path: Path, *, force: bool) -> EdgekitError | None:
    """The first thing that stands in the way of one export, without loading any framework."""
    if route not in target.routes:
        reason = f"{target.name} is {target.default_route}'s own format: it can't be reached via {route}"
        return RefusedError(f"{reason}; leave out --via, or use --via {target.default_route}")
    refused = refusal(scheme, target.name)
    if refused:
        return RefusedError(refused)
    try:
        extras.check_installed(target.routes[route], f"exporting {target.name} via {route}")
        extras.check_installed(_quantizers(target, scheme), f"exporting {target.name} as {scheme}")
        check_replaceable(path, force=force, marker=MANIFEST)
    except EdgekitError as error:
        return error
    return None


def _quantizers(target: Target, scheme: str) -> tuple[str, ...]:
    """Modules that making the scheme needs beside those of the route."""
    if scheme in ("none", "fp16"):
        return ()
    return {"tflite": ("ai_edge_quantizer",), "onnx": ("onnxruntime",)}.get(target.name, ())
