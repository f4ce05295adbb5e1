"""Texts of edgekit's own, to try a file on where the data of its checkpoint can't be read again."""

import hashlib
import json
from functools import cache as memoized

from edgekit.cache import Cache
from edgekit.cache_keys import cache_key
from edgekit.errors import DataError, MissingExtraError
from edgekit.text.ui_strings import catalogues_sha256, read_ui_strings

SAMPLE_TEXTS = (
    "Save",
    "Open the settings and choose a language.",
    "%(count)d files were copied to %(folder)s",
    "Die Datei konnte nicht gespeichert werden.",
    "Voulez-vous vraiment quitter sans enregistrer ?",
    "¿Desea eliminar estos tres elementos?",
    "Não foi possível ligar ao servidor",
    "Impostazioni della stampante",
    "Проверьте подключение к сети",
    "Ρυθμίσεις ήχου και εικόνας",
    "تم حفظ التغييرات",
    "הקובץ לא נמצא",
    "保存并继续",
    "ファイルを選択してください",
    "새 폴더 만들기",
    "Tiedostoa ei löytynyt 🙂",
)

#: one text that fills every length
_FULL = "word " * 300
#: texts that trip tokenizers up: nothing, only space, marks on letters, joined emoji, both directions, markup of their
#: own, numbers, code, lines, and characters that no vocabulary has
EDGE_TEXTS = (
    "",
    " ",
    "\t\n",
    "a",
    "?",
    "  two  spaces  and a trailing one ",
    "naïve café, Ångström, façade, coöperate",
    "nai\u0308ve cafe\u0301 A\u030angstro\u0308m",
    "İstanbul ve ışık; STRASSE, Straße, STRAẞE",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇪🇺 ❤️ 1️⃣",
    "🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂",
    "e\u0301\u0302\u0303\u0304\u0305 z\u0335\u0336\u0337",
    "שלום, world, مرحبا 123",
    "\u202bright to left\u202c and \u200bzero\u200bwidth\u00a0spaces\ufeff",
    "ｆｕｌｌ ｗｉｄｔｈ １２３ ﬁ ﬂ ㍿ ①②③ Ⅷ",
    "数学と物理学、そして化学。한국어와 日本語",
    "ภาษาไทยไม่มีช่องว่าง ខ្មែរ မြန်မာ",
    "हिन्दी में लिखा हुआ वाक्य। বাংলা தமிழ் తెలుగు",
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <mask> <unk>",
    "##ing ▁word Ġword </w>",
    "<b>bold</b> &amp; <a href='x?y=1&z=2'>link</a>",
    "def f(x): return {'a': [x ** 2 for _ in range(10)]}",
    "SELECT * FROM t WHERE a <> 'b''c'; -- remark",
    "https://example.org/a/b?c=d&e=%20#f",
    "name.surname+tag@example.org",
    "C:\\Users\\name\\file (1).txt",
    "1,234,567.89 € −0.5e−10 3/4 ½ 10²³",
    "2026-11-25T03:22:51Z 12:34:56.789",
    "don't can't won't it's o'clock rock'n'roll",
    "state-of-the-art—really… “quoted” ‘single’ «guillemets»",
    "ALL CAPITALS AND camelCase_and_snake_case",
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopic",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "line one\nline two\r\nline three\u2028line four",
    "\x00\x01\x1f\x7f control characters",
    "\ue000\uf8ff private use \U0010ffff last",
    "𝕬𝖇𝖈 𝒳 𝟙𝟚𝟛 𐍈 𓀀 🜁",
    "ﷺ ﷽",
    _FULL,
    "Ω≈ç√∫˜µ≤≥÷ ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋",
)
#: how often "long text " stands in the longest text, of 100,000 characters
LONGEST = ("long text ", 10_000)
_LANGUAGES = ("ar", "de", "el", "es", "fi", "fr", "he", "ja", "ko", "pl", "ru", "tr", "zh_Hans")


def real_texts(count: int, cache: Cache | None = None) -> tuple[tuple[str, ...], str]:
    """`count` texts, always the same, and where they are from: edgekit's own, then Django's interface strings.

    Fewer where Django or polib is not installed. The first are ordinary sentences, the last of edgekit's own trip
    tokenizers up.
    """
    own = (*SAMPLE_TEXTS, *EDGE_TEXTS)
    if count <= len(own):
        return own[:count], "edgekit's own texts"
    strings, origin = interface_strings(count - len(own), cache)
    return (*own, *strings), f"edgekit's own texts and {origin}" if strings else f"edgekit's own texts ({origin})"


def ordinary_texts(count: int, cache: Cache | None = None) -> tuple[tuple[str, ...], str]:
    """`count` texts such as people write, always the same, and their origin: edgekit's own, one of them as long as any
    model takes, then Django's interface strings; where those are not installed, `real_texts`.
    """
    own = (*SAMPLE_TEXTS, _FULL)
    strings, origin = interface_strings(count, cache)
    if not strings:
        return real_texts(count, cache)
    return (*own, *strings)[:count], f"edgekit's own texts and {origin}"


@memoized
def interface_strings(count: int, cache: Cache | None = None) -> tuple[tuple[str, ...], str]:
    """`count` of Django's interface strings, every other one in English, and where they are from.

    None, and the reason, where Django or polib is not installed. What is in `cache` is not read again.
    """
    try:
        if cache is None:
            return _read_strings(count)
        key = cache_key("interface-strings", count=count, files=catalogues_sha256())
    except (DataError, MissingExtraError) as error:
        return (), f"no others: {error}"
    strings, origin = json.loads(cache.remember(key, lambda: json.dumps(_read_strings(count)).encode()))
    return tuple(strings), origin


def _read_strings(count: int) -> tuple[tuple[str, ...], str]:
    rows = read_ui_strings(_LANGUAGES)
    both = [sorted({getattr(row, side) for row in rows.rows}, key=_rank) for side in ("source", "text")]
    mixed = dict.fromkeys(text for pair in zip(*both, strict=False) for text in pair)
    return tuple(mixed)[:count], f"ui-strings of {rows.version}"


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
