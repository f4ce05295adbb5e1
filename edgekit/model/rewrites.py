"""Rewrites: the same arithmetic in another form, for accelerators that take the one and not the other.

What a rewritten file answers is compared with the model as it was trained, never with the rewritten one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import RefusedError, UnknownNameError
from edgekit.model.config import TransformerConfig
from edgekit.program import Signature, TensorSpec

GELU_TANH, FUSED_HEADS, SPLIT_HEADS = "gelu-tanh", "fused-heads", "split-heads"
FLOAT_MASK, FP16_MASK, FP16_NORM = "float-mask", "fp16-mask", "fp16-norm"

#: ten times what GELU by tanh changes in logits of the embedded model and of tiny ones: 1e-4 of the largest
GELU_TANH_TOLERANCE = 1e-3
#: with `fp16-mask`, what is added to the score of padding: exp(-100) is 0 in float16 and 4e-44 in float32
SMALL_MASKED_SCORE = -100.0


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """One rewrite: what becomes of the model, what it helps, and what it adds to a scheme's relative tolerance."""

    becomes: str
    helps: str
    adds_tolerance: float = 0.0


REWRITES: dict[str, Rewrite] = {
    FLOAT_MASK: Rewrite(
        becomes="the input mask is float32 [1, 1, 1, length] (1.0 a token, 0.0 padding), as it is added to the scores",
        helps="accelerators that have no CAST from integers, which would begin with a piece on the CPU",
    ),
    GELU_TANH: Rewrite(
        becomes="GELU by its tanh approximation (arXiv:1606.08415), which differs from it by 5e-4 at most",
        helps="accelerators and delegates that know tanh and not erf",
        adds_tolerance=GELU_TANH_TOLERANCE,
    ),
    FUSED_HEADS: Rewrite(
        becomes="queries, keys and values of all heads from one matrix product instead of three",
        helps="GPUs, where each operator costs a start of its own",
    ),
    SPLIT_HEADS: Rewrite(
        becomes="each head by itself: no tensor of rank 4, no transposition of heads",
        helps="NPUs that take tensors of rank 3 at most, or copy to transpose",
    ),
    FP16_MASK: Rewrite(
        becomes="padding gets a score of -100 instead of -10000 (its probability is 0 in float16 either way)",
        helps="float16 with other additions to the scores, and quantized scores, whose range it no longer stretches",
    ),
    FP16_NORM: Rewrite(
        becomes="norms divide by the largest value before they square, so that no square leaves float16's range",
        helps="float16 arithmetic of models with activations above 255, which answer NaN or nonsense otherwise",
    ),
}
#: rewrites that people ask for and that every export has anyway
BUILT_IN = {
    "int32-ids": "ids are int32 in every file that edgekit exports",
}
#: rewrites that change the matrices of a file, so that a recipe would not find its modules
_CHANGE_MATRICES = (FUSED_HEADS, SPLIT_HEADS)


def find_rewrites(names: Sequence[str]) -> tuple[str, ...]:
    """The rewrites of these names (`--rewrite`), once each, in the order of `REWRITES`.

    Raises UnknownNameError, which names the nearest; RefusedError for one that every file has, or two that exclude each
    other.
    """
    for name in names:
        if name in BUILT_IN:
            raise RefusedError(f"{BUILT_IN[name]}: leave out --rewrite {name}")
        if name not in REWRITES:
            raise UnknownNameError("rewrite", name, REWRITES)
    if FUSED_HEADS in names and SPLIT_HEADS in names:
        raise RefusedError(f"{FUSED_HEADS} and {SPLIT_HEADS} exclude each other: give one of them")
    return tuple(name for name in REWRITES if name in names)


def refuse_rewrite(rewrites: Sequence[str], config: TransformerConfig, *, recipe: bool) -> str | None:
    """Why a model can't be rewritten so; None where it can. `recipe`: each module has a scheme of its own."""
    if GELU_TANH in rewrites and config.activation != "gelu":
        return f"{GELU_TANH} has no use here: the model's activation is {config.activation}"
    changed = [name for name in rewrites if name in _CHANGE_MATRICES]
    if recipe and changed:
        return f"{changed[0]} makes other matrices than the modules that a recipe names: leave one of them out"
    if changed and (config.kv_heads != config.num_heads or not config.linear_bias):
        return f"{changed[0]} is offered for attention with biases and as many heads of keys as of queries"
    return None


def added_tolerance(rewrites: Sequence[str]) -> float:
    """What these rewrites add to the relative tolerance of a scheme."""
    return sum(REWRITES[name].adds_tolerance for name in rewrites)


def rewrite_signature(signature: Signature, rewrites: Sequence[str]) -> Signature:
    """The signature of the rewritten program: only `float-mask` changes it."""
    if FLOAT_MASK not in rewrites:
        return signature
    inputs = tuple(_float_mask(spec) if spec.name == "mask" else spec for spec in signature.inputs)
    return signature.model_copy(update={"inputs": inputs})


def _float_mask(spec: TensorSpec) -> TensorSpec:
    batch, length = spec.shape
    return TensorSpec(name=spec.name, dtype="float32", shape=(batch, 1, 1, length))
