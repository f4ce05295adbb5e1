"""Text from tokens as they come: never half a character, and in the end all of it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from edgekit.text.processor import train_processor
from edgekit.text.streaming import TextStream

BYTES = train_processor("byte", (), 260, max_length=64, writes=True)


@given(st.text(max_size=12))
def test_pieces_are_whole_characters_and_together_the_text(text: str) -> None:
    stream = TextStream(BYTES.decode)
    pieces = [stream.push(token) for token in BYTES.encode_uncut([text])[0]]
    assert "".join(pieces) + stream.end() == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)
        assert all(len(piece) <= 1 for piece in pieces)


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_are_told_of_once(content: bytes) -> None:
    ids = [BYTES.encode_uncut([chr(byte)])[0][0] if byte < 128 else 0 for byte in content]
    broken = [token for token in ids if token] + BYTES.encode_uncut(["é"])[0][:1]
    stream = TextStream(BYTES.decode)
    shown = "".join(map(stream.push, broken)) + stream.end()
    assert shown == BYTES.decode(broken)
    assert shown.endswith("\ufffd")


def test_a_tokenizer_that_drops_the_first_space_of_a_text() -> None:
    words = ("▁the", "▁file", "s", "▁open")

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[token] for token in ids).replace("▁", " ").removeprefix(" ")

    stream = TextStream(decode)
    assert [stream.push(token) for token in range(4)] == ["the", " file", "s", " open"]
    assert stream.end() == ""
