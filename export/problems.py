"""What stands in the way of a file that is asked for, found without loading any framework."""

from pathlib import Path

from edgekit import extras
from edgekit.bundle import MANIFEST
from edgekit.errors import EdgekitError, RefusedError
from edgekit.export.asked import AskedFile, ForeignModel
from edgekit.export.lengths import refuse_lengths
from edgekit.export.quantize.mixture import fit_recipe
from edgekit.export.schemes import CALIBRATED, refusal
from edgekit.export.targets import Target
from edgekit.export.writer_plan import refuse_cache, refuse_route, refuse_writer
from edgekit.model.rewrites import FLOAT_MASK, refuse_rewrite
from edgekit.outputs import check_replaceable


def find_problem(asked: AskedFile, path: Path, *, force: bool) -> EdgekitError | None:
    """The first thing in the way: what rules it out, then what this machine lacks, or has at `path` already."""
    refused = (
        _refuse_writing(asked)
        or refuse_cache(asked.target.name, asked.cache_dtype, writes=asked.writes)
        or _refuse_coreml(asked)
        or _refuse_rewrites(asked)
        or _refuse_lengths(asked)
        or _refuse_foreign(asked)
        or _refuse_route(asked)
        or (refusal(asked.scheme, asked.target.name) if isinstance(asked.scheme, str) else None)
    )
    return RefusedError(refused) if refused else _lacking(asked, path, force=force)


def _refuse_writing(asked: AskedFile) -> str | None:
    """What keeps a model that writes from a target, or from it by this route."""
    if not asked.writes:
        return None
    config, name, lengths = asked.config, asked.target.name, asked.coreml.sequence_lengths or asked.lengths
    refused = refuse_writer(config, name, asked.scheme, asked.rewrites, lengths)
    return refused or refuse_route(config, name, asked.route, asked.kv_cache, asked.coreml.minimum_deployment_target)


def _refuse_coreml(asked: AskedFile) -> str | None:
    """The first of the schemes that the options of Core ML rule out."""
    if asked.target.name != "coreml":
        return None
    longest = asked.config.max_length
    refused = next((reason for name in asked.schemes if (reason := asked.coreml.refusal(name, longest))), None)
    if refused is None and asked.coreml.multifunction and asked.recipe:
        refused = "a recipe is of one function: leave out --multifunction"
    return f"coreml: {refused}" if refused else None


def _refuse_rewrites(asked: AskedFile) -> str | None:
    """What in the model, the scheme or the lengths asked for rules a rewrite out."""
    if isinstance(asked.config, ForeignModel):
        return None  # `_refuse_foreign` says why
    if refused := refuse_rewrite(asked.rewrites, asked.config, recipe=asked.recipe is not None):
        return refused
    calibrated = sorted(CALIBRATED & set(asked.schemes))
    if FLOAT_MASK in asked.rewrites and (asked.coreml.sequence_lengths or asked.lengths):
        return f"{FLOAT_MASK} is offered for one sequence length: leave out --sequence-length"
    if FLOAT_MASK in asked.rewrites and calibrated and asked.target.name == "tflite":
        return f"tflite does not offer {FLOAT_MASK} with {calibrated[0]}: its quantizer makes float inputs integers"
    return None


def _refuse_lengths(asked: AskedFile) -> str | None:
    """What keeps a target from these lengths; Core ML's are checked with its options."""
    target, longest = asked.target, asked.config.max_length
    if asked.by_default or not asked.lengths or target.lengths == "options":
        return None
    if len(asked.lengths) > 1 and target.lengths == "one":
        why = "this model can't be captured with any length"
        if target.name == "pt2":
            why = "symbolic sizes would be read as code by whoever loads the file"
        return f"{target.name} takes one sequence length: {why}; leave --sequence-length out, or give {longest}"
    refused = refuse_lengths(asked.lengths, longest)
    return f"{target.name}: {refused}" if refused else None


def _refuse_foreign(asked: AskedFile) -> str | None:
    if not isinstance(asked.config, ForeignModel):
        return None
    return asked.config.refusal(asked.target, asked.route, asked.scheme, asked.rewrites)


def _refuse_route(asked: AskedFile) -> str | None:
    target = asked.target
    if asked.route in target.routes:
        return None
    reason = f"{target.name} is {target.default_route}'s own format: it can't be reached via {asked.route}"
    return f"{reason}; leave out --via, or use --via {target.default_route}"


def _lacking(asked: AskedFile, path: Path, *, force: bool) -> EdgekitError | None:
    """A recipe that does not fit the model, an extra that is not installed, or a bundle that is there already."""
    target = asked.target
    try:
        if asked.recipe and not isinstance(asked.config, ForeignModel):
            fit_recipe(asked.recipe, asked.config, target.name)
        extras.check_installed(target.routes[asked.route], f"exporting {target.name} via {asked.route}")
        extras.check_installed(_quantizers(target, asked.label), f"exporting {target.name} as {asked.label}")
        check_replaceable(path, force=force, marker=MANIFEST)
    except EdgekitError as error:
        return error
    return None


def _quantizers(target: Target, scheme: str) -> tuple[str, ...]:
    """Modules that making the scheme needs beside those of the route."""
    if scheme in ("none", "fp16"):
        return ()
    return {"tflite": ("ai_edge_quantizer",), "onnx": ("onnxruntime",)}.get(target.name, ())
