"""What models that write are exported to: targets, schemes and options, or why not."""

from collections.abc import Sequence
from typing import Literal, Protocol

from edgekit.export.recipes import Recipe
from edgekit.export.schemes import CALIBRATED
from edgekit.program import Framework, ModelTask
from edgekit.sources.writers import SHORTEST

TARGETS = ("tflite", "onnx", "coreml")
#: the cache of an ONNX file: it grows with the text (Optimum's form), or has room for the longest from the start
KvCache = Literal["dynamic", "static"]
#: how the cache is kept between calls
CacheDtype = Literal["float32", "int8"]


class Limits(Protocol):
    """What must be known of a model that writes, edgekit's own or another's."""

    @property
    def task(self) -> ModelTask:
        """Generate, or translate."""

    @property
    def max_length(self) -> int:
        """How many tokens it reads at most."""


def refuse_writer(
    config: Limits, target: str, scheme: str | Recipe, rewrites: Sequence[str], lengths: Sequence[int]
) -> str | None:
    """Why a model that writes can't go to a target so; None where it can."""
    if config.max_length < SHORTEST:
        return f"the model reads {config.max_length} token in all: to write takes --max-length {SHORTEST} or more"
    if target not in TARGETS:
        return f"{target} is not offered for models that write ({config.task}): say --target {','.join(TARGETS)}"
    if isinstance(scheme, Recipe):
        return f"the recipe {scheme.name} is of a classifier's modules: give a model that writes a scheme"
    if scheme in CALIBRATED:
        return (
            f"{target} does not offer {scheme} for models that write: the cache stays in float32 between calls, and so "
            "does what reads it; say int8-dynamic"
        )
    if rewrites:
        return f"--rewrite {rewrites[0]} is of the classifier's graph: leave it out"
    if lengths:
        return "--sequence-length is of classifiers and translators; a model to generate takes --prefill-length"
    return None


def refuse_route(config: Limits, target: str, route: Framework, kv_cache: KvCache, system: str | None) -> str | None:
    """Why a model that writes can't go to a target through this framework; `system` is the oldest asked for."""
    if target == "coreml" and route != "torch" and system == "iOS18":
        return (
            "coremltools makes states, which packages for iOS18 keep the cache in, of PyTorch's buffers alone: leave "
            "out --via, or say --minimum-deployment-target iOS17 for a package that takes the cache as inputs"
        )
    if target == "onnx" and route != "torch" and kv_cache == "dynamic":
        return "onnx has a cache that grows through torch alone: leave out --via, or say --kv-cache static"
    if target == "onnx" and route != "torch" and config.task == "translate":
        return "onnx takes models that translate through torch alone: leave out --via"
    return None


def refuse_cache(target: str, cache_dtype: CacheDtype, *, writes: bool) -> str | None:
    """Why a file of this target can't keep its cache so; None where it can."""
    if cache_dtype == "float32":
        return None
    if not writes:
        return f"--cache-dtype {cache_dtype} is of models that write: leave it out"
    return None if target == "tflite" else f"{target} does not offer --cache-dtype {cache_dtype}: it is of tflite"


def refuse_source_lengths(lengths: Sequence[int], config: Limits, targets: Sequence[str]) -> str | None:
    """Why a model to translate can't read source texts of these lengths beside its longest; None where it can."""
    if not lengths or tuple(lengths) == (config.max_length,):
        return None
    if "coreml" in targets or "all" in targets:
        return (
            "--sequence-length of a model to translate is of tflite: a Core ML package has one function for source "
            "texts of all lengths, padded to the longest, and ONNX takes any length; leave coreml out"
        )
    if max(lengths) > config.max_length:
        return f"--sequence-length {max(lengths)} is over the model's {config.max_length} tokens"
    return None


def refuse_prefill(lengths: Sequence[int], config: Limits) -> str | None:
    """Why a model can't be given these prefill lengths (ascending); None where it can."""
    if not lengths:
        return None
    if config.task == "classify":
        return "--prefill-length is of models that write; a classifier takes --sequence-length"
    if config.task == "translate":
        return "--prefill-length is of models to generate: a translation begins with one token; leave it out"
    if lengths[0] < SHORTEST:
        return f"--prefill-length {lengths[0]} is what decode does; the shortest is {SHORTEST}"
    if lengths[-1] > config.max_length:
        return f"--prefill-length {lengths[-1]} is over the model's context of {config.max_length} tokens"
    return None
