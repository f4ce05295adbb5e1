"""The change that would help where an accelerator leaves an operator to the CPU."""

_LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP", "Gather")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "CAST", "Cast")
_FLOAT_ONLY = ("float32", "Float32", "FLOAT_32")

#: operator → what to do, where no reason tells more
_BY_OPERATOR = {
    "LayerNormalization": "export through TensorFlow (--via tensorflow), which writes norms as simple operators",
    "Erf": "use the tanh form of GELU, which is made of operators that this list has",
    "GELU": "use the tanh form of GELU, which is made of operators that this list has",
    "BATCH_MATMUL": "no scheme changes that attention multiplies activations: take an accelerator that has it",
    "ReduceSum": "a mean over tokens as a matrix product with the mask would do without it",
    "SQUARED_DIFFERENCE": "norms written as a subtraction and a multiplication would do without it",
    "MatMulInteger": "export with --quantize int8, whose fixed ranges need no integer product of its own",
    "DynamicQuantizeLinear": "export with --quantize int8: ranges that are found while it runs are left to the CPU",
}
_GENERAL = "one change of processor each time: measure it with edgekit bench before rewriting anything"


def advise(operator: str, reason: str, accelerator: str) -> str:
    """What to do about an operator that was left behind for a reason."""
    if operator in _LOOKUPS:
        if "8" in reason and "FLOAT" in reason.upper():
            return "keep the token table in float: a recipe with `embed` in none or fp16, or --quantize none"
        return "little, where it comes first (the token table): one change of processor, of few bytes"
    if accelerator == "ethos-u" and any(word in reason for word in _FLOAT_ONLY):
        return "int8 leaves the mean's division and the mask in float, of few bytes; int16x8 or a recipe may do without"
    if operator in _CONVERSIONS:
        return "these stand where types change: fewer types (one scheme for all modules) make fewer of them"
    return _BY_OPERATOR.get(operator, _GENERAL)
