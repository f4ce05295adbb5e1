"""The embedded model beside language identifiers and linear models, on the same held-out source strings, in one run.

    python benchmarks/language_id.py            into the README
    python benchmarks/language_id.py --check    the embedded model again, compared with the saved row (what CI runs)

Three numbers for each. `one language`: the share right of texts that exist in one language only (what the training
report calls accuracy). `any`: the share of all texts where the answer is one of the languages that have the text.
`strict`: the share of all texts where it is the language of this row. A peer that can't tell scripts or regions apart
is right with the language alone.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tables

from edgekit.checkpoint import Checkpoint, embedded_checkpoint_path, load_checkpoint
from edgekit.model.sizes import parameter_count
from edgekit.predict import predict_texts
from edgekit.report.markdown import markdown_table
from edgekit.text.datasets import Dataset, Example, reload_data

COMMAND = "python benchmarks/language_id.py"
PEERS = {"langdetect": "1.0.9", "py3langid": "0.4.0", "lingua-language-detector": "2.1.1"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; `weights` is 0 where it can't be counted."""

    name: str
    weights: int
    one_language: float
    any_language: float
    strict: float


def main() -> None:
    """Measure all, save, and put the table into the README."""
    checkpoint = load_checkpoint(embedded_checkpoint_path())
    test = all_test_examples()
    if "--check" in sys.argv:
        check_embedded(checkpoint, test)
        return
    rows = [measure_embedded(checkpoint, test), *measure_linear(test), *measure_peers(checkpoint, test)]
    tables.save_result("language_id", COMMAND, [vars(row) for row in rows])
    cells = [
        [
            row.name,
            f"{row.weights / 1e6:.2f} M" if row.weights else "–",
            *(f"{100 * value:.1f} %" for value in (row.one_language, row.any_language, row.strict)),
        ]
        for row in rows
    ]
    headers = ["", "weights", "texts of one language", "any language that has the text", "strict"]
    note = f"Made by `{COMMAND}`, all in one run, on {len(test)} texts of source strings that no training saw (median "
    note += f"{sorted(len(e.text.encode()) for e in test)[len(test) // 2]} bytes, {len(checkpoint.labels)} languages)."
    tables.put_in_readme("language_id", markdown_table(headers, cells), note)


@cache
def data() -> Dataset:
    """What the embedded model was trained on, read once for all that is measured here."""
    record = load_checkpoint(embedded_checkpoint_path()).data
    if record is None:
        raise SystemExit("the embedded checkpoint has no record of its data")
    return reload_data(record)


def all_test_examples() -> list[Example]:
    """Every text of the test part, those that exist in several languages (which training leaves out) among them."""
    return sorted((*data().test, *data().ambiguous_test))


@cache
def languages_of_texts() -> dict[str, set[str]]:
    """Every language that has each text, anywhere in the data."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in (data().train, data().validation, data().test, data().ambiguous_test):
        for example in part:
            found[example.text].add(example.label)
    return found


def score(
    name: str,
    weights: int,
    predicted: Sequence[str],
    test: Sequence[Example],
    same: Callable[[str, str], bool] = lambda answer, label: answer == label,
) -> Row:
    """The three numbers for one list of answers."""
    languages = languages_of_texts()
    strict = [same(answer, example.label) for answer, example in zip(predicted, test, strict=True)]
    anyone = [
        any(same(answer, label) for label in languages[example.text])
        for answer, example in zip(predicted, test, strict=True)
    ]
    clear = set(data().test)
    single = [right for right, example in zip(strict, test, strict=True) if example in clear]
    row = Row(
        name=name,
        weights=weights,
        one_language=sum(single) / len(single),
        any_language=sum(anyone) / len(anyone),
        strict=sum(strict) / len(strict),
    )
    print(
        f"{name}: one language {row.one_language:.4f}, any {row.any_language:.4f}, strict {row.strict:.4f}", flush=True
    )
    return row


def measure_embedded(checkpoint: Checkpoint, test: Sequence[Example]) -> Row:
    """The embedded model, in the framework that trained it."""
    answers = predict_texts(checkpoint.path, [example.text for example in test], top_k=1)
    predicted = [answer[0][0] for answer in answers]
    return score("**edgekit, embedded**", parameter_count(checkpoint.config), predicted, test)


def measure_linear(test: Sequence[Example]) -> list[Row]:
    """Linear models over character 1- to 4-grams, trained on the same text."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.svm import LinearSVC

    train = data().train
    grams: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (1, 4), "lowercase": True}
    models = {
        "linear, 1- to 4-grams, counts, logistic": (
            CountVectorizer(**grams, binary=True),
            SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=30, random_state=0),
        ),
        "linear, 1- to 4-grams, TF-IDF, SVM": (TfidfVectorizer(**grams, sublinear_tf=True), LinearSVC(C=0.5)),
    }
    rows = []
    for name, (vectorizer, classifier) in models.items():
        features = vectorizer.fit_transform([example.text for example in train])
        classifier.fit(features, [example.label for example in train])
        predicted = classifier.predict(vectorizer.transform([example.text for example in test]))
        rows.append(score(name, classifier.coef_.size, list(predicted), test))
    return rows


def measure_peers(checkpoint: Checkpoint, test: Sequence[Example]) -> list[Row]:
    """The identifiers that people install, in an environment of their own."""
    environment = tables.WORK / "language-peers"
    if not environment.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pins = [f"{name}=={version}" for name, version in PEERS.items()]
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *pins], check=True)
    languages = sorted({label.split("_")[0] for label in checkpoint.labels})
    rows = []
    for peer in PEERS:
        job = {"peer": peer, "languages": languages, "texts": [example.text for example in test]}
        script = [environment / "bin" / "python", tables.ROOT / "benchmarks" / "language_id_peers.py"]
        run = subprocess.run(script, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
        rows.append(score(f"{peer} {PEERS[peer]}", 0, json.loads(run.stdout), test, same_language))
    return rows


def same_language(answer: str, label: str) -> bool:
    """Whether a peer's code names the label's language (it may not tell scripts apart)."""
    language = label.split("_")[0]
    return answer.split("-")[0] == language or (language == "nb" and answer == "no")


def check_embedded(checkpoint: Checkpoint, test: Sequence[Example]) -> None:
    """Score the embedded model again and compare with the saved row."""
    saved = tables.load_result("language_id")["rows"][0]
    now = vars(measure_embedded(checkpoint, test))
    for name in ("one_language", "any_language", "strict"):
        if abs(saved[name] - now[name]) > 0.001:  # another processor may round a tie the other way
            raise SystemExit(
                f"benchmarks/results/language_id.json no longer holds: {name} {saved[name]} is {now[name]}"
            )


if __name__ == "__main__":
    main()
