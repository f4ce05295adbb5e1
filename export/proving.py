"""The proof of a planned bundle: golden steps as its file takes them, run and compared; or as found before."""

import datetime
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgekit.bundle import GOLDEN, TOKENIZER, Accuracy, Parity, WrittenTexts, file_sha256
from edgekit.cache import Cache, tree_sha256
from edgekit.cache_keys import cache_key
from edgekit.export.placing import place_golden
from edgekit.export.plan import PlannedExport
from edgekit.export.schemes import tolerance_of
from edgekit.export.subjects import Reference
from edgekit.program import Signature
from edgekit.proof.prove import Proof, prove_file
from edgekit.proof.writing import context_of

_PROOF = "proof.json"


@dataclass(frozen=True, kw_only=True)
class PlanProof:
    """What running the file showed; `before` is the day it was run, where that was not now."""

    proof: Proof
    before: str = ""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    parity: Parity
    accuracy: Accuracy
    written: WrittenTexts | None = None
    measured: datetime.date


def prove_plan(
    plan: PlannedExport,
    folder: Path,
    reference: Reference,
    signatures: Sequence[Signature],
    cache: Cache | None,
    scratch: Path,
) -> PlanProof:
    """Write the golden steps of `plan` into its bundle and run its target file, there with its tokenizer, on them.

    With `cache`, a file is not run where the same bytes have held before, on the same steps, in the same runtime, here.
    Raises RunnerError where the file can't be run at all.
    """
    if cache is None:
        return PlanProof(proof=_prove(plan, folder, reference, signatures))
    key = _key(plan, folder, reference, signatures)
    kept = scratch / f"{plan.name}.proof"
    if cache.fetch(key, kept):
        (kept / GOLDEN).rename(folder / GOLDEN)
        found = _Kept.model_validate_json((kept / _PROOF).read_bytes())
        proof = Proof(parity=found.parity, accuracy=found.accuracy, written=found.written)
        return PlanProof(proof=proof, before=found.measured.isoformat())
    proof = _prove(plan, folder, reference, signatures)
    if proof.parity.verdict == "within-tolerance":  # what failed is worth another look
        today = datetime.date.today()
        record = _Kept(parity=proof.parity, accuracy=proof.accuracy, written=proof.written, measured=today)
        kept.mkdir()
        (kept / _PROOF).write_text(record.model_dump_json(), encoding="utf-8")
        cache.store(key, {GOLDEN: folder / GOLDEN, _PROOF: kept / _PROOF})
        shutil.rmtree(kept)
    return PlanProof(proof=proof)


def _prove(plan: PlannedExport, folder: Path, reference: Reference, signatures: Sequence[Signature]) -> Proof:
    place_golden(plan, reference.golden, folder / GOLDEN, signatures)
    tolerance = tolerance_of(plan.schemes, plan.rewrites, half_states=plan.stateful)
    return prove_file(
        folder / plan.target.file,
        plan.runtime,
        folder / GOLDEN,
        relative_tolerance=tolerance.relative,
        labels_changed_tolerance=tolerance.labels_changed,
        cosine_tolerance=tolerance.cosine,
        population=reference.population,
        accuracy_note=reference.note,
        same_tokens=tolerance.same_tokens,
        bits_tolerance=tolerance.bits_per_byte,
        context=context_of(signatures),
    )


def _key(plan: PlannedExport, folder: Path, reference: Reference, signatures: Sequence[Signature]) -> str:
    """All that the proof depends on; tolerances are those of its schemes and rewrites, by edgekit's code."""
    tokenizer = folder / TOKENIZER
    return cache_key(
        "proof",
        model=tree_sha256(folder / plan.target.file),
        golden=file_sha256(reference.golden),
        tokenizer=file_sha256(tokenizer) if tokenizer.is_file() else None,
        signatures=[each.model_dump(mode="json") for each in signatures],
        lengths=plan.lengths,
        target=plan.target.name,
        runtime=plan.runtime,
        schemes=plan.schemes,
        rewrites=plan.rewrites,
        population=reference.population,
        note=reference.note,
    )
