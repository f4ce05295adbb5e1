"""The Transformer's configuration: what both implementations and every exporter are built from."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A config.json is a foreign file: these keep one from asking for an absurd table or an endless loop
# before any weight has been compared with it.
MAX_LAYERS = 1024
MAX_LENGTH = 65_536


class TransformerConfig(BaseModel):
    """Hyperparameters of a pre-norm Transformer encoder with a classification head.

    `embedding_size` other than None factorises the embedding (ALBERT, arXiv:1909.11942): tokens are looked up
    in `embedding_size` dimensions and projected to `hidden_size`. `shared_layers` applies one block
    `num_layers` times (same paper). `rotary` positions are RoFormer's (arXiv:2104.09864) in the half-rotation
    form; `rmsnorm` is arXiv:1910.07467; `gelu` is the exact one, by the error function.

    Raises pydantic.ValidationError for a value out of range, an unknown field, or sizes that do not divide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: Literal["classify"] = "classify"
    vocab_size: int = Field(ge=1)
    num_labels: int = Field(ge=2)
    max_length: int = Field(default=64, ge=1, le=MAX_LENGTH)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_heads: int = Field(ge=1)
    ffn_size: int = Field(ge=1)
    embedding_size: int | None = Field(default=None, ge=1)
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    activation: Literal["gelu", "relu"] = "gelu"
    positions: Literal["learned", "rotary"] = "learned"
    pooling: Literal["mean", "first"] = "mean"
    shared_layers: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    norm_eps: float = Field(default=1e-5, gt=0.0)
    pad_id: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head size; hidden_size/num_heads is {self.head_dim}")
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not in the vocabulary of {self.vocab_size}")
        return self

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def token_size(self) -> int:
        """Width of the token table: `embedding_size`, or `hidden_size` if not factorised."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def num_blocks(self) -> int:
        """Number of blocks that have weights of their own: 1 with `shared_layers`, else `num_layers`."""
        return 1 if self.shared_layers else self.num_layers
