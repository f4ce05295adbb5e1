"""Turns text into ids: a `tokenizers` tokenizer with edgekit's special tokens, length limit and padding."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgekit.errors import CheckpointError, DataError, RefusedError, UnknownNameError

TokenizerKind = Literal["byte", "bpe", "wordpiece"]
TOKENIZER_KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[UNK]")  # their places are their ids
WRITING_TOKENS = ("[PAD]", "[BOS]", "[UNK]", "[EOS]")  # those of models that write text
PAD_ID, CLS_ID, UNK_ID = range(3)
BOS_ID, EOS_ID = 1, 3
CUT = "\ue000"  # private use: where `with_cuts` ends a piece
# printf and str.format: the same in every language, and so no evidence for any
PLACEHOLDER = r"%(\(\w*\))?[-0-9.]*[sdif]|\{\w*\}"


class Processor:
    """Text to ids: [CLS] first, never empty, cut to `max_length` tokens.

    That of a model that writes text begins with [BOS], has [EOS] for the end, and gives every text back as it was.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer as `train_processor` makes it; raises CheckpointError for one that is not."""
        self._writes = (tokenizer.token_to_id("[BOS]"), tokenizer.token_to_id("[EOS]")) == (BOS_ID, EOS_ID)
        self._special_tokens = WRITING_TOKENS if self._writes else SPECIAL_TOKENS
        self._max_length = _check(tokenizer, self._special_tokens)
        if self._writes:
            tokenizer.encode_special_tokens = True  # "[EOS]" in a text is text, not its end; tokenizer.json lacks this
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tokenizer.json; raises CheckpointError where it is missing, broken or not edgekit's."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"can't read the tokenizer {path}: {error.strerror}") from error
        try:
            tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # tokenizers 0.23 raises plain Exception
            raise CheckpointError(f"{path} is not a tokenizer: {str(error).splitlines()[0]}") from error
        try:
            return cls(tokenizer)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        path.write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    def equals(self, other: "Processor") -> bool:
        """Tell whether both give every text the same ids."""
        return bool(self._tokenizer.to_str() == other._tokenizer.to_str())

    @property
    def writes(self) -> bool:
        """Whether it is for a model that writes text: with [BOS] and [EOS]."""
        return self._writes

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def max_length(self) -> int:
        """Longest list of ids that `encode` returns."""
        return self._max_length

    def token_texts(self) -> list[str]:
        """Return the text of each id as it stands in a text, a leading space included; "" for special tokens.

        WordPiece's "##" is left out; bytes of an unfinished character are U+FFFD.
        """
        decoder = decoders.ByteLevel()
        word_pieces = isinstance(self._tokenizer.model, models.WordPiece)
        tokens = [
            self._tokenizer.id_to_token(index) or "" for index in range(len(self._special_tokens), self.vocab_size)
        ]
        texts = [token.removeprefix("##") if word_pieces else decoder.decode([token]) for token in tokens]
        return [*("" for _ in self._special_tokens), *texts]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text: 1 to `max_length` of them, [CLS] first.

        Raises DataError for a string that is not valid Unicode (a lone surrogate).
        """
        return _encoded(self._tokenizer, texts, special=True)

    def encode_uncut(self, texts: Sequence[str]) -> list[list[int]]:
        """Return all ids of each text, without special tokens.

        Raises DataError for a string that is not valid Unicode (a lone surrogate).
        """
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.encode_special_tokens = self._writes
        tokenizer.no_truncation()
        return _encoded(tokenizer, texts, special=False)

    def is_cut(self, text: str) -> bool:
        """Tell whether `encode` leaves out the end of a text, as it is longer than `max_length` ids."""
        return bool(self._tokenizer.encode(text).overflowing)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens.

        Where the model writes, what was encoded; else as it was normalized, without spaces at its ends. Bytes that are
        no character become U+FFFD.
        """
        word_pieces = isinstance(self._tokenizer.model, models.WordPiece)
        tokens = [self._tokenizer.id_to_token(index) or "" for index in ids if index >= len(self._special_tokens)]
        decoder = decoders.WordPiece() if word_pieces else decoders.ByteLevel()
        text = str(decoder.decode(tokens))
        return text if self._writes else text.strip()

    def with_cuts(self) -> "Processor":
        """Return a processor for training on varied text: the same, but a piece also ends at each CUT in a text.

        Only for bpe: WordPiece takes what follows a cut for the start of a word.
        """
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        split = pre_tokenizers.Split(CUT, "removed")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.pre_tokenizer])
        return Processor(tokenizer)

    def encode_padded(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return ids and mask, int32 [n, length] each: 1 in the mask is a token, 0 padding; longer texts are cut."""
        return pad_ids([ids[:length] for ids in self.encode(texts)], length)


def pad_ids(rows: Sequence[Sequence[int]], length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ids and mask, int32 [n, length], of rows that are no longer than `length`."""
    ids = np.full((len(rows), length), PAD_ID, np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def train_processor(
    kind: str,
    texts: Iterable[str],
    vocab_size: int,
    *,
    max_length: int = 64,
    lowercase: bool = False,
    strip_placeholders: bool = False,
    writes: bool = False,
) -> Processor:
    """Learn a tokenizer from `texts`; `vocab_size` includes the special tokens (`byte` always has 259, 260 to write).

    `byte` is one id per UTF-8 byte, `bpe` merges bytes (so nothing is ever unknown), `wordpiece` merges characters
    and splits as BERT does; characters that are too rare for half the vocabulary are unknown to it.
    `strip_placeholders` takes %s, %(name)d and {name} for a space. The same texts in the same order give the same
    tokenizer. `writes` makes one for models that write text: its texts are not normalized at all.

    Raises UnknownNameError for another kind, RefusedError for a vocabulary that is too small, or for options that
    change a text that has to come back as it was.
    """
    if kind not in TOKENIZER_KINDS:
        raise UnknownNameError("tokenizer", kind, TOKENIZER_KINDS)
    special = WRITING_TOKENS if writes else SPECIAL_TOKENS
    least = 256 + len(special)
    if kind != "byte" and vocab_size < least:
        raise RefusedError(
            f"--vocab-size {vocab_size} is too small: 256 bytes and the special tokens alone are {least}"
        )
    if writes and (kind == "wordpiece" or lowercase or strip_placeholders):
        raise RefusedError("a model that writes needs a tokenizer that keeps every character: byte or bpe, as it is")
    normalizer = [] if writes else _normalizer(lowercase, strip_placeholders)
    if kind == "wordpiece":
        tokenizer = _train_wordpiece(list(texts), vocab_size, normalizer)
    else:
        tokenizer = _train_byte_level(texts, vocab_size, normalizer, special, merges=kind == "bpe")
    first = special[CLS_ID]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, CLS_ID)])
    tokenizer.enable_truncation(max_length)
    return Processor(tokenizer)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    try:
        return [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]
    except (TypeError, UnicodeEncodeError) as error:
        raise DataError(f"can't tokenize a text that is not valid Unicode: {_first_bad(texts)!a}") from error


def _normalizer(lowercase: bool, strip_placeholders: bool) -> list[Any]:
    placeholders = [normalizers.Replace(Regex(PLACEHOLDER), " ")] if strip_placeholders else []
    return [normalizers.NFC(), *placeholders, *([normalizers.Lowercase()] if lowercase else [])]


def _train_byte_level(
    texts: Iterable[str], vocab_size: int, steps: list[Any], special: Sequence[str], *, merges: bool
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if (
        merges and special == SPECIAL_TOKENS
    ):  # a word is the same at the start of a text as inside it, and white space is only a border
        steps = [*steps, normalizers.Prepend(" "), normalizers.Replace(Regex(r"\s+"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    # The regular expression splits into words, so that no merge crosses one; without merges it is only time lost.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=merges)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size if merges else 256 + len(special),
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts if merges else (), trainer)
    return tokenizer


def _train_wordpiece(texts: Sequence[str], vocab_size: int, steps: list[Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [*steps, normalizers.BertNormalizer(lowercase=False, strip_accents=False)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    first, later = _characters(tokenizer, texts, limit=vocab_size // 2)
    # tokenizers 0.23 numbers the characters inside words ("##e") in the order of a hash map, and so breaks ties
    # between merges differently in every process. As special tokens they are numbered by us; a fresh model then
    # takes over the vocabulary, so that none of them stays special.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *(f"##{character}" for character in later)],
        initial_alphabet=first,
        limit_alphabet=len(first),
        min_frequency=2,
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    learner.train_from_iterator(texts, trainer)
    tokenizer.model = models.WordPiece(learner.get_vocab(), unk_token="[UNK]")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _characters(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> tuple[list[str], list[str]]:
    """Return the most frequent characters that start a word or lie inside one, and of these the latter."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    frequent = sorted(sorted(counts), key=lambda character: -counts[character])
    kept: list[str] = []
    room = limit
    for character in frequent:
        room -= 2 if character in inside else 1
        if room < 0:
            break  # rarer characters become [UNK]
        kept.append(character)
    return sorted(kept), sorted(inside.intersection(kept))


def _check(tokenizer: Tokenizer, special: Sequence[str]) -> int:
    """Return the length limit of a tokenizer that is as `train_processor` makes it."""
    for index, token in enumerate(special):
        if tokenizer.token_to_id(token) != index:
            raise CheckpointError(
                f"the tokenizer's {token} must have the id {index}, not {tokenizer.token_to_id(token)}"
            )
    if tokenizer.truncation is None:
        raise CheckpointError("the tokenizer has no length limit (truncation)")
    if tokenizer.encode("").ids[:1] != [CLS_ID]:
        raise CheckpointError(f"the tokenizer must put {special[CLS_ID]} before a text")
    return int(tokenizer.truncation["max_length"])


def _first_bad(texts: Sequence[str]) -> str:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return text
    return ""
