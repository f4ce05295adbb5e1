"""Tokens to text as they come, without showing half a character."""

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # what bytes that are no character (yet) decode to

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Gives the text of each token as soon as its last character is whole.

    Tokens are decoded with those of the last piece before them: some tokenizers write the first token of a text without
    the space before it. Tokens without text (special ones) are no piece.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start, self._told = 0, 0

    def push(self, token: int) -> str:
        """Take one more token; returns the text that can be shown now, which may be empty."""
        self._ids.append(token)
        return self._new(whole=True)

    def end(self) -> str:
        """The rest of the text, with a sign for bytes that never became a character."""
        return self._new(whole=False)

    def _new(self, *, whole: bool) -> str:
        before = self._decode(self._ids[self._start : self._told])
        text = self._decode(self._ids[self._start :])
        if whole and text.endswith(_BROKEN):
            return ""
        new = text[len(before) :]
        if new:
            self._start = self._told
        self._told = len(self._ids)
        return new
