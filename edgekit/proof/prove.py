"""Nothing ships unproven: which texts a file is tried on, and the proof itself."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import TOKENIZER, Accuracy, Parity, WrittenTexts
from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint, check_classifier
from edgekit.errors import DataError, MissingExtraError
from edgekit.proof.accuracy import score_outputs
from edgekit.proof.golden import Golden, read_golden, take_steps, text_steps, write_golden
from edgekit.proof.golden_texts import unpack_texts
from edgekit.proof.parity import compare_outputs
from edgekit.proof.replay import EVALUATED, is_evaluated, replay_steps
from edgekit.proof.samples import HeldOut, held_out, stratified_sample
from edgekit.proof.texts import SAMPLE_TEXTS
from edgekit.proof.writing import run_here
from edgekit.proof.written import prove_texts
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.text.processor import Processor

#: of a model that writes, where a classifier has its accuracy
NO_LABELS = "a model that writes has no labels"
_PARTS: dict[HeldOut, str] = {"test": "held-out", "validation": "validation"}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The texts that every exported file is tried on, encoded: ids and mask int32 [samples, length].

    `labels` are indices of the true labels (-1: unknown), `population` how many held-out examples the sample was drawn
    from, `origin` where the texts come from, `note` why accuracy can't be measured, if so.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    labels: NDArray[np.int32]
    population: int
    origin: str
    note: str

    def write_steps(self, path: Path) -> None:
        """Write the inputs as steps, for the reference."""
        steps = text_steps({"ids": self.ids, "mask": self.mask}, SIGNATURE)
        write_golden(path, Golden(steps=steps, labels=self.labels))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What running a file showed."""

    parity: Parity
    accuracy: Accuracy
    written: WrittenTexts | None = None


def choose_samples(
    checkpoint: Checkpoint, count: int | None, part: HeldOut = "test", *, cache: Cache | None = None
) -> Samples:
    """A fixed stratified sample of a held-out part of the checkpoint's data (None: all of it).

    Where the data can't be read again, edgekit's own sample texts, without labels, and a note that says why.
    """
    check_classifier(checkpoint, "this verb")
    length = checkpoint.config.max_length
    try:
        examples = held_out(checkpoint, part, cache=cache)
    except (DataError, MissingExtraError) as error:
        ids, mask = checkpoint.processor.encode_padded(SAMPLE_TEXTS, length)
        labels = np.full(len(SAMPLE_TEXTS), -1, dtype=np.int32)
        note = f"not measured: {error}"
        return Samples(ids=ids, mask=mask, labels=labels, population=0, origin="edgekit's own samples", note=note)
    chosen = examples if count is None else stratified_sample(examples, count)
    ids, mask = checkpoint.processor.encode_padded([e.text for e in chosen], length)
    index = {label: i for i, label in enumerate(checkpoint.labels)}
    labels = np.array([index[e.label] for e in chosen], dtype=np.int32)
    origin = checkpoint.data.source if checkpoint.data else ""
    return Samples(
        ids=ids, mask=mask, labels=labels, population=len(examples), origin=f"{_PARTS[part]} part of {origin}", note=""
    )


def prove_file(
    model: Path,
    runtime: str,
    golden_path: Path,
    *,
    relative_tolerance: float,
    labels_changed_tolerance: float,
    cosine_tolerance: float,
    population: int,
    accuracy_note: str,
    max_steps: int | None = None,
    same_tokens: bool = False,
    bits_tolerance: float = 1.0,
    context: int | None = None,
) -> Proof:
    """Run a target file on the golden steps, compare its outputs and score its answers, or the texts that it writes.

    With `same_tokens` each token that it writes must be the source's; its bits per byte may be more than the source's
    by the share `bits_tolerance`; it reads `context` tokens at most. `max_steps` bounds the steps where running one is
    slow: a simulator takes 0.1 s and more for what a device does in a millisecond. Raises RunnerError where the file
    can't be run at all.
    """
    golden, tokenizer = read_golden(golden_path), golden_path.with_name(TOKENIZER)
    with tempfile.TemporaryDirectory(prefix="edgekit-prove-") as folder:
        if max_steps and max_steps < len(golden.steps):
            golden, golden_path = take_steps(golden, max_steps), Path(folder, "golden.npz")
            write_golden(golden_path, golden)
        produced = replay_steps(model, runtime, golden_path).produced
    parity = compare_outputs(golden, produced, relative_tolerance, labels_changed_tolerance, cosine_tolerance)
    if is_evaluated(runtime):
        parity = parity.model_copy(update={"evaluated": EVALUATED})
    texts = unpack_texts(golden)
    if texts is not None:
        processor = Processor.load(tokenizer)
        written = prove_texts(run_here(model, runtime), texts, processor, population, accuracy_note, context)
        parity = _with_written(parity, written, same_tokens, bits_tolerance)
        return Proof(parity=parity, accuracy=Accuracy(accuracy=None, note=NO_LABELS), written=written)
    if accuracy_note or not np.any(golden.labels >= 0):
        return Proof(parity=parity, accuracy=Accuracy(accuracy=None, note=accuracy_note or "not measured: no labels"))
    return Proof(parity=parity, accuracy=score_outputs(golden, produced, population))


def _with_written(parity: Parity, written: WrittenTexts, same_tokens: bool, bits_tolerance: float) -> Parity:
    """The parity, failed where what was written is not what the scheme may write."""
    note = ""
    if same_tokens and written.first_difference:
        count = f"{written.tokens - written.tokens_equal} of {written.tokens} tokens"
        note = f"{count} are not the source's: {written.first_difference}"
    elif written.scores and written.reference_scores:
        found, wanted = written.scores.bits_per_byte, written.reference_scores.bits_per_byte
        if not found <= wanted * (1 + bits_tolerance):
            note = f"{found:.4f} bits per byte are over {100 * bits_tolerance:g} % more than the source's {wanted:.4f}"
    if not note or parity.verdict == "failed":
        return parity
    return parity.model_copy(update={"verdict": "failed", "note": note})
