"""edgekit takes a compact Transformer from training to a phone or a Raspberry Pi, and proves every file on the way."""

__version__ = "0.1.0"
