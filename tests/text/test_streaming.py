"""Text from tokens as they come: never half a character, and in the end all of it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import train_processor
from edgekit.text.streaming import TextStream

WORDS = ("save", "file", "files", "the", "s", ".")


def sentence_pieces() -> HubTokenizer:
    """A tokenizer as Llama's: pieces with their spaces, bytes for what has none, and a special token."""
    pieces = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *WORDS, *(f"▁{word}" for word in WORDS)]
    model = models.Unigram([(piece, -1.0 - len(pieces) / 100) for piece in pieces], unk_id=0, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<s>"])
    return HubTokenizer(tokenizer)


def word_pieces() -> HubTokenizer:
    """A tokenizer as BERT's, which puts spaces between words when it decodes."""
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(("[UNK]", "##s", *WORDS))}))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]"])
    return HubTokenizer(tokenizer)


PIECES, WORD_PIECES = sentence_pieces(), word_pieces()
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


@given(st.lists(st.sampled_from([*WORDS, " ", "é", "☃", "<s>", "  "]), max_size=8))
def test_tokenizers_of_others_stream_what_they_decode(parts: list[str]) -> None:
    text = " ".join(parts)
    for tokenizer in (PIECES, WORD_PIECES):
        ids, _ = tokenizer.encode_whole(text)
        stream = TextStream(tokenizer.decode)
        pieces = [stream.push(token) for token in ids]
        assert "".join(pieces) + stream.end() == tokenizer.decode(ids)
        assert "\ufffd" not in "".join(pieces)


def test_parts_without_a_token_are_named_once() -> None:
    assert WORD_PIECES.encode_whole("save ☃ the ☃ x [UNK]")[1] == ("☃", "x")
    assert WORD_PIECES.unknown == (0, "[UNK]")
    assert PIECES.encode_whole("save ☃")[1] == ()
