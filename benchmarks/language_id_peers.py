"""Runs one language identifier over texts; started by language_id.py inside the peers' own environment.

Reads {"peer", "languages", "texts"} as JSON on standard input, writes the predicted codes as JSON. `languages` are ISO
639-1 codes: each peer answers among these only.
"""

import json
import sys


def langdetect_codes(texts: list[str], languages: list[str]) -> list[str]:
    """The allowed language with the highest probability (langdetect can't be restricted beforehand)."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    allowed = {*languages, *(["no"] if "nb" in languages else []), *(["zh-cn", "zh-tw"] if "zh" in languages else [])}
    codes = []
    for text in texts:
        try:
            found = [guess.lang for guess in langdetect.detect_langs(text) if guess.lang in allowed]
        except langdetect.LangDetectException:
            found = []  # "no features in text"
        codes.append(found[0] if found else "")
    return codes


def py3langid_codes(texts: list[str], languages: list[str]) -> list[str]:
    """The best of the allowed languages."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = set(identifier.labels)
    identifier.set_languages([code for code in [*languages, "no"] if code in known])
    return [identifier.classify(text)[0] for text in texts]


def lingua_codes(texts: list[str], languages: list[str]) -> list[str]:
    """The best of the allowed languages, in high-accuracy mode."""
    import lingua

    wanted = [language for language in lingua.Language.all() if language.iso_code_639_1.name.lower() in languages]
    detector = lingua.LanguageDetectorBuilder.from_languages(*wanted).build()
    found = detector.detect_languages_in_parallel_of(texts)
    return [language.iso_code_639_1.name.lower() if language else "" for language in found]


PEERS = {"langdetect": langdetect_codes, "py3langid": py3langid_codes, "lingua-language-detector": lingua_codes}

if __name__ == "__main__":
    job = json.load(sys.stdin)
    json.dump(list(PEERS[job["peer"]](job["texts"], job["languages"])), sys.stdout)
