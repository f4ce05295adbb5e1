"""`edgekit report` on bundles of a model that writes: what they write, beside each other whatever their caches."""

import json
import re
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, Parity, TextScores, WrittenTexts, open_bundle
from edgekit.export.diagnosis.advice import advise
from edgekit.report.quantization import SchemeGroup, SchemeRow
from tests.cli.conftest import Edgekit
from tests.devices.writers import writer_checkpoint


@pytest.mark.slow
def test_bundles_of_a_model_that_writes_are_compared_by_what_they_write(tmp_path: Path, edgekit: Edgekit) -> None:
    checkpoint = writer_checkpoint(tmp_path, "translate")
    made = edgekit("export", checkpoint.path, "--target", "onnx,tflite", "--eval-samples", "4")
    assert made.code == 0, made.err
    shown = edgekit("report", "--no-latency")
    assert shown.code == 0, shown.err
    assert "combinations of model" not in shown.out  # one group, though the cache of one file alone grows
    for words in ("texts equal", "tokens equal", "bits per byte", "100.0 %", "tokens are the source's"):
        assert words in shown.out
    for words in ("label", "accuracy"):
        assert words not in shown.out
    (group,) = json.loads(edgekit("report", "--no-latency", "--json").out)["quantization"]["groups"]
    bundles: list[Bundle] = [open_bundle(path) for path in sorted(Path("bundles").glob("*.edgekit"))]
    found = {row["bundle"]: row["written"]["tokens_equal"] for row in group["rows"]}
    written = {each.manifest.name: each.manifest.written for each in bundles}
    assert found == {name: record.tokens for name, record in written.items() if record}
    assert len(found) == 2
    of_checkpoint = edgekit("report", checkpoint.path, "--no-latency")
    assert of_checkpoint.code == 0, of_checkpoint.err
    assert "translate was not measured by module" in of_checkpoint.out
    assert "texts equal" in of_checkpoint.out


def writing_row(name: str, size_bytes: int, bits: float | None, equal: int = 100) -> SchemeRow:
    scores, before = (TextScores(bits_per_byte=each) if bits and each else None for each in (bits, 2.0))
    return SchemeRow(
        bundle=name,
        target="tflite",
        via="torch",
        scheme=name,
        size_bytes=size_bytes,
        parity=Parity(verdict="within-tolerance", steps=4),
        written=WrittenTexts(
            prompts=4, texts_equal=1, tokens=100, tokens_equal=equal, scores=scores, reference_scores=before
        ),
    )


@pytest.mark.parametrize(
    ("small", "shipped", "words"),
    [
        (writing_row("small", 10, 2.01, 60), "small", r"bits per byte change by \+0.50 %, and 60 of 100 tokens"),
        (writing_row("small", 10, 2.1, 99), "large", r"bits per byte change by \+0.00 %, and 100 of 100 tokens"),
        (writing_row("small", 10, None, 99), "small", r"99 of 100 tokens are the source's \(no held-out texts"),
        (writing_row("small", 10, None, 98), "large", r"100 of 100 tokens are the source's"),
    ],
)
def test_what_is_shipped_keeps_its_bits_per_byte_or_its_tokens(small: SchemeRow, shipped: str, words: str) -> None:
    large = writing_row("large", 40, 2.0 if small.written and small.written.scores else None)
    (advice,) = advise(SchemeGroup(model="m", model_sha256="0" * 64, texts="", rows=(large, small)))
    assert advice.subject == shipped
    assert re.search(words, advice.text)
