"""What each operation computes, one module for each family."""

from importlib import import_module

_FAMILIES = (
    "activations",
    "compression",
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "normalization",
    "products",
    "reductions",
    "shapes",
)


def load_all() -> None:
    """Import every family, so that its operations are registered."""
    for family in _FAMILIES:
        import_module(f"{__name__}.{family}")
