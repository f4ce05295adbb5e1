"""The Transformer's configuration: what both implementations and every exporter are built from."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.program import ModelTask

# A config.json is a foreign file: these keep one from asking for an absurd table or an endless loop
# before any weight has been compared with it.
MAX_LAYERS = 1024
MAX_LENGTH = 65_536


class TransformerConfig(BaseModel):
    """Hyperparameters of a pre-norm Transformer: one block, stacked in one of three ways.

    `task` decides how: `classify` is an encoder with a classification head, `generate` a decoder that gives scores of
    the next token, `translate` an encoder and a decoder that attends to it (arXiv:1706.03762); of the latter,
    `num_layers` is the encoder's and `num_decoder_layers` the decoder's (None: as many). `num_labels` is for
    `classify` alone, and `max_length` the longest text, of either side, in tokens.

    `embedding_size` other than None factorises the embedding (ALBERT, arXiv:1909.11942): tokens are looked up
    in `embedding_size` dimensions and projected to `hidden_size`. `shared_layers` applies one block
    `num_layers` times (same paper). `rotary` positions are RoFormer's (arXiv:2104.09864) in the half-rotation
    form; `rmsnorm` is arXiv:1910.07467; `gelu` is the exact one, by the error function. `num_kv_heads` fewer than
    `num_heads` is grouped-query attention (arXiv:2305.13245). `gated_ffn` multiplies the activation by a second
    projection (arXiv:2002.05202): with `silu` that is SwiGLU. `linear_bias` is of the blocks' matrices.
    `tied_embeddings` scores the next token by the token table itself (arXiv:1608.05859) rather than by a head.

    Raises pydantic.ValidationError for a value out of range, an unknown field, or sizes that do not divide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: ModelTask = "classify"
    vocab_size: int = Field(ge=1)
    num_labels: int = Field(default=0, ge=0)
    max_length: int = Field(default=64, ge=1, le=MAX_LENGTH)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_decoder_layers: int | None = Field(default=None, ge=1, le=MAX_LAYERS)
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    ffn_size: int = Field(ge=1)
    embedding_size: int | None = Field(default=None, ge=1)
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    gated_ffn: bool = False
    linear_bias: bool = True
    tied_embeddings: bool = True
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
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head size; hidden_size/num_heads is {self.head_dim}")
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not in the vocabulary of {self.vocab_size}")
        return self

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.task == "classify" and self.num_labels < 2:
            raise ValueError(f"num_labels is {self.num_labels}: to classify takes at least 2")
        if self.task != "classify" and self.num_labels:
            raise ValueError(f"num_labels {self.num_labels} is for the task classify, not {self.task}")
        if self.task != "translate" and self.num_decoder_layers is not None:
            raise ValueError(f"num_decoder_layers is for the task translate, not {self.task}")
        return self

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Number of heads of keys and values: `num_kv_heads`, or `num_heads`."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def decoder_layers(self) -> int:
        """Number of layers that keep a cache: of the decoder, 0 without one."""
        if self.task == "translate":
            return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers
        return self.num_layers if self.task == "generate" else 0

    @property
    def token_size(self) -> int:
        """Width of the token table: `embedding_size`, or `hidden_size` if not factorised."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def num_blocks(self) -> int:
        """Number of blocks that have weights of their own: 1 with `shared_layers`, else `num_layers`."""
        return 1 if self.shared_layers else self.num_layers

    @property
    def num_decoder_blocks(self) -> int:
        """Number of the decoder's blocks that have weights of their own."""
        return min(1, self.decoder_layers) if self.shared_layers else self.decoder_layers
