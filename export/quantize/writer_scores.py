"""What a candidate recipe of a model that writes comes to: how well its file foretells texts, token by token."""

from pathlib import Path
from typing import Any

from edgekit.errors import RefusedError
from edgekit.export.quantize.scores import Scorer
from edgekit.proof.golden_texts import unpack_texts
from edgekit.proof.in_framework import run_backend
from edgekit.proof.writing import score_texts
from edgekit.train.text_metrics import bits_per_byte


class WriterScorer(Scorer):
    """Scores candidates by their loss of the golden texts, beside the source model's; logits are not kept."""

    def _measure(self, path: Path) -> dict[str, Any]:
        texts = unpack_texts(self._golden)
        if texts is None or not texts.scored:
            raise RefusedError("there are no texts to foretell")
        found = score_texts(run_backend(self._load(path), path.name), texts.scored)
        return {
            "texts": len(found),
            "accuracy": sum(text.correct for text in found) / sum(text.tokens for text in found),
            "bits_per_byte": bits_per_byte(sum(text.loss for text in found), texts.size_bytes),
            "reference_bits_per_byte": bits_per_byte(texts.loss, texts.size_bytes),
        }
