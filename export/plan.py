"""What an export will do, decided before any framework is loaded: routes, schemes, sizes and refusals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import extras
from edgekit.bundle import MANIFEST, SUFFIX
from edgekit.errors import EdgekitError, RefusedError
from edgekit.export.schemes import BYTES_PER_WEIGHT, check_scheme, refusal
from edgekit.export.targets import Target, find_frameworks, find_targets
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.outputs import check_replaceable
from edgekit.program import Framework


@dataclass(frozen=True, kw_only=True)
class PlannedExport:
    """One bundle to be made: where from, by which route, and where to.

    `expected_size_bytes` counts the weights only; `problem` is why it can't be made, if so.
    """

    target: Target
    route: Framework
    scheme: str
    path: Path
    expected_size_bytes: int
    problem: EdgekitError | None

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
) -> list[PlannedExport]:
    """List the bundles that these options ask for, each with what stands in its way.

    Without `via` each target takes its default route. Raises UnknownNameError for a name that does not exist.
    """
    frameworks = find_frameworks(list(via))
    plans = []
    for target in find_targets(list(targets)):
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
                        problem=_problem(target, route, scheme, path, force=force),
                    )
                )
    return plans


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
