"""Golden token ids: what a bundle's tokenizer must make of real texts, kept as `tokens.json`.

A tokenizer that travels to another language or another release of its library is where answers quietly change.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekit.bundle import TOKENIZER, TOKENS, Bundle
from edgekit.cache import Cache
from edgekit.errors import BundleError
from edgekit.program import WRITING_TASKS
from edgekit.proof.texts import LONGEST, real_texts
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import Processor

COUNT = 200
Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenizedText(_Record):
    """A text, repeated `times`, and its ids: special tokens and the cut to the model's length included."""

    text: str
    times: int = 1
    ids: tuple[int, ...]


class GoldenTokens(_Record):
    """Texts and their ids as the source's own tokenizer gave them; `origin` says where the texts are from."""

    origin: str
    texts: tuple[TokenizedText, ...]


def write_tokens(path: Path, tokenize: Tokenize, cache: Cache | None = None) -> None:
    """Tokenize 200 real texts, and one of 100,000 characters, with the source's own tokenizer, and keep the ids."""
    texts, origin = real_texts(COUNT, cache)
    given = [*((text, 1) for text in texts), LONGEST]
    ids = tokenize([text * times for text, times in given])
    kept = tuple(
        TokenizedText(text=text, times=times, ids=tuple(row)) for (text, times), row in zip(given, ids, strict=True)
    )
    path.write_text(GoldenTokens(origin=origin, texts=kept).model_dump_json() + "\n", encoding="utf-8")


def check_tokens(bundle: Bundle) -> int:
    """Tokenize the golden texts of a bundle again, with its tokenizer.json alone; how many there are (0: none kept).

    Raises BundleError, which names the first text whose ids differ.
    """
    path = bundle.path / TOKENS
    if not path.is_file():
        return 0
    try:
        golden = GoldenTokens.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path} can't be read; export the bundle again") from error
    own = Processor if bundle.manifest.task in WRITING_TASKS else HubTokenizer  # whose "[EOS]" in a text is text
    found = own.load(bundle.path / TOKENIZER).encode([each.text * each.times for each in golden.texts])
    for each, ids in zip(golden.texts, found, strict=True):
        if tuple(ids) != each.ids:
            place = next(
                (i for i, pair in enumerate(zip(ids, each.ids, strict=False)) if pair[0] != pair[1]), "its end"
            )
            raise BundleError(
                f"{bundle.path}: {TOKENIZER} gives {each.text[:30]!r} other ids than the source's tokenizer gave, "
                f"from token {place} on: another release of tokenizers? export the bundle again"
            )
    return len(golden.texts)
