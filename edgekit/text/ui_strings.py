"""The built-in data: Django's translated interface strings, read with polib from the installed wheel.

A label is a language, a source string the English msgid of a catalogue's entry; plural forms share their entry's
msgid. The text itself is Django's (BSD-3-Clause) and is never copied into edgekit.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, UnknownNameError
from edgekit.extras import check_installed, installed_version, require
from edgekit.text.readers import Row, Rows, TextPair

NAME = "ui-strings"
ENGLISH = "en"  # its text is the msgids
# fmt: off
DEFAULT_LANGUAGES = (
    "ar", "sk", "pl", "ru", "cs", "he", "uk", "es", "fr", "lv", "it", "sl", "lt", "da", "nl", "pt", "sv", "tr",
    "bg", "et", "hu", "de", "fi", "sq", "ca", "ro", "fa", "el", "nb", "id", "ja", "ko", "zh_Hans", "zh_Hant",
    "af", "mk", "cy", "hr", "vi", "en",
)
# fmt: on


def read_ui_strings(languages: Sequence[str]) -> Rows:
    """Read every translated string of `languages` (catalogue names as Django writes them: de, pt_BR, zh_Hans).

    A regional variant of a language (pt_BR where pt was asked for, and pt_BR itself was not) gives rows marked
    `variant`. Strings that translators have not confirmed (fuzzy) or that are no longer used are left out.

    Raises UnknownNameError for a language without catalogues and MissingExtraError without Django or polib.
    """
    check_installed(("django", "polib"), f"--data {NAME}")
    paths = _catalogue_paths()
    known = sorted({ENGLISH, *(_locale(path) for path in paths)})
    for language in languages:
        if language not in known:
            raise UnknownNameError("language", language, known)
    rows = tuple(row for path in paths for row in _catalogue_rows(path, frozenset(languages)))
    return Rows(rows=rows, sha256=_rows_sha256(rows), version=f"Django {installed_version('django')}")


def read_ui_pairs(language: str) -> tuple[tuple[TextPair, ...], str, str]:
    """Read English strings with their translation into one language: the pairs, their sha256, and the version.

    Of plural forms, the singular goes with the first form and the plural with the last. Regional variants, strings
    that translators have not confirmed (fuzzy) and strings without a translation are left out.

    Raises UnknownNameError for a language without catalogues and MissingExtraError without Django or polib.
    """
    check_installed(("django", "polib"), f"--data {NAME}")
    paths = _catalogue_paths()
    known = sorted({_locale(path) for path in paths} - {ENGLISH})
    if language not in known:
        raise UnknownNameError("language to translate into", language, known)
    pairs = tuple(pair for path in paths if _locale(path) == language for pair in _catalogue_pairs(path))
    values = [[pair.source, pair.target, pair.key] for pair in pairs]
    return pairs, _sha256(values), f"Django {installed_version('django')}"


@cache
def catalogues_sha256() -> str:
    """The sha256 of the files that strings are read from, which is known long before they are read.

    Raises what reading them would.
    """
    check_installed(("django", "polib"), f"--data {NAME}")
    digest = hashlib.sha256()
    for path in _catalogue_paths():
        digest.update(f"{'/'.join(path.parts[-5:])}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _catalogue_pairs(path: Path) -> Iterator[TextPair]:
    for entry in require("polib", f"--data {NAME}").pofile(str(path), encoding="utf-8"):
        if entry.obsolete or "fuzzy" in entry.flags:
            continue
        forms = [text for _, text in sorted(entry.msgstr_plural.items())]
        found = [(entry.msgid, entry.msgstr)]
        if forms:  # a language with one form only has it for the plural
            found = [(entry.msgid, forms[0] if len(forms) > 1 else ""), (entry.msgid_plural, forms[-1])]
        for source, target in found:
            if source and target:
                yield TextPair(source=source, target=target, key=entry.msgid)


def _catalogue_paths() -> list[Path]:
    spec = importlib.util.find_spec("django")  # found, not imported
    roots = list(spec.submodule_search_locations or ()) if spec else []
    paths = [path for root in roots for path in Path(root).glob("**/locale/*/LC_MESSAGES/*.po")]
    if not paths:
        raise DataError("the installed Django has no catalogues (*.po): some systems strip them; reinstall it with pip")
    return sorted(paths)


def _locale(path: Path) -> str:
    return path.parts[-3]


def _language(locale: str, languages: frozenset[str]) -> str | None:
    """Return the language that a catalogue's text is labelled with, or None where nobody asked for it."""
    base = locale.split("_")[0]
    return locale if locale in languages else base if base in languages else None


def _catalogue_rows(path: Path, languages: frozenset[str]) -> Iterator[Row]:
    locale = _locale(path)
    language = _language(locale, languages)
    if language is None and ENGLISH not in languages:
        return
    for entry in require("polib", f"--data {NAME}").pofile(str(path), encoding="utf-8"):
        if entry.obsolete or "fuzzy" in entry.flags:
            continue
        if ENGLISH in languages:
            yield from _rows((entry.msgid, entry.msgid_plural), ENGLISH, entry, variant=False)
        if language is not None:
            texts = (entry.msgstr, *entry.msgstr_plural.values())
            yield from _rows(texts, language, entry, variant=locale != language)


def _rows(texts: Sequence[str], label: str, entry: Any, *, variant: bool) -> Iterator[Row]:
    for text in texts:
        if text:
            yield Row(text=text, label=label, source=entry.msgid, variant=variant)


def _rows_sha256(rows: Sequence[Row]) -> str:
    """Hash what was read rather than Django's files: the same strings are the same data."""
    return _sha256([row.text, row.label, row.source, row.variant] for row in rows)


def _sha256(values: Iterable[Sequence[object]]) -> str:
    digest = hashlib.sha256()
    for row in values:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
