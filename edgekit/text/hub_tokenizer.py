"""Any tokenizer.json of the `tokenizers` library: texts to ids and mask, for bundles of foreign models."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgekit.errors import BundleError, DataError

Ids = NDArray[np.int32]


class HubTokenizer:
    """A tokenizer that cuts texts to `length` tokens and pads them to that."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tokenizer.json; raises BundleError where it is missing or broken."""
        try:
            return cls(Tokenizer.from_buffer(path.read_bytes()))
        except Exception as error:  # tokenizers 0.23 raises plain Exception
            raise BundleError(f"{path} is not a tokenizer: {str(error).splitlines()[0]}") from error

    @classmethod
    def adopt(cls, serialized: str, length: int, *, pad_id: int | None = None, pad_token: str = "") -> Self:
        """Take a tokenizer as tokenizer.json has it, and give it a length, and padding to the right with `pad_id`."""
        tokenizer = Tokenizer.from_str(serialized)
        tokenizer.enable_truncation(length)
        if pad_id is None:
            tokenizer.no_padding()
            return cls(tokenizer)
        tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad_token, direction="right")
        return cls(tokenizer)

    @property
    def max_length(self) -> int:
        """Longest list of ids that `encode` returns."""
        return int((self._tokenizer.truncation or {})["max_length"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than `encode` returns."""
        return bool(self._tokenizer.encode(text).overflowing)

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        path.write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, special tokens and cut included, padding not."""
        return [[i for i, real in zip(e.ids, e.attention_mask, strict=True) if real] for e in self._encoded(texts)]

    def encode_whole(self, text: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """All ids of a text, special tokens included; and the parts of it that have no token, each once.

        Raises DataError for a string that is not valid Unicode (a lone surrogate).
        """
        try:
            found = self._uncut.encode(text)
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError("can't tokenize a text that is not valid Unicode") from error
        parts = [
            text[start:end]
            for token, (start, end) in zip(found.ids, found.offsets, strict=True)
            if token == self.unknown[0]
        ]
        return tuple(found.ids), tuple(part for part in dict.fromkeys(parts) if part not in ("", self.unknown[1]))

    @cached_property
    def unknown(self) -> tuple[int | None, str]:
        """Id and name of the token for what has none; (None, "") where everything has one."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if model.get("type") == "Unigram" and model.get("unk_id") is not None:
            return int(model["unk_id"]), str(model["vocab"][model["unk_id"]][0])
        name = model.get("unk_token") or ""
        return (self._tokenizer.token_to_id(name), name) if name else (None, "")

    @cached_property
    def _uncut(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def encode_padded(self, texts: Sequence[str], length: int) -> tuple[Ids, Ids]:
        """Ids and mask, int32 [n, length] each: 1 in the mask is a token, 0 padding; longer texts are cut."""
        encoded = self.encode_inputs(texts, length)
        return encoded["ids"], encoded["mask"]

    def encode_inputs(self, texts: Sequence[Any], length: int) -> dict[str, Ids]:
        """Ids, mask and token_types (0 for the first of a pair, 1 for the second), int32 [n, length] each."""
        encodings = self._encoded(texts, length)
        columns = {"ids": "ids", "mask": "attention_mask", "token_types": "type_ids"}
        return {
            name: np.array([getattr(each, column) for each in encodings], np.int32).reshape(-1, length)
            for name, column in columns.items()
        }

    def _encoded(self, texts: Sequence[Any], length: int | None = None) -> list[Any]:
        """Encodings, at `length` where it is not the tokenizer's own."""
        tokenizer = self._tokenizer
        if length is not None and (tokenizer.padding or {}).get("length") != length:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            padding = tokenizer.padding or {"direction": "right"}
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(**(padding | {"length": length}))
        try:
            return list(tokenizer.encode_batch(list(texts)))
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError("can't tokenize a text that is not valid Unicode") from error
