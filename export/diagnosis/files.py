"""Bundles beside each other: replayed on this host, compared on the same texts, and what to ship."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import TOKENIZER, Bundle, Manifest, Parity, check_files, read_labels
from edgekit.errors import BundleError, EdgekitError
from edgekit.export.diagnosis.advice import front_of
from edgekit.measurement import Measurement
from edgekit.proof.golden import Golden, Step, read_golden, stack_outputs
from edgekit.proof.golden_texts import unpack_texts
from edgekit.proof.intervals import paired_interval
from edgekit.proof.parity import OUTPUT, compare_outputs
from edgekit.proof.replay import EVALUATED, is_evaluated, replay_steps
from edgekit.report.quantization import AccuracyChange, ChangedText, SchemeGroup, SchemeRow
from edgekit.statistics import summarize
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import Processor

EXAMPLES = 8  # texts whose label changed, of each bundle
_TIMEOUT_S = 900.0


def check_bundles(bundles: Sequence[Bundle]) -> dict[Path, str]:
    """What keeps each bundle from being measured ("": nothing): its files are not as they were written."""
    problems = {}
    for bundle in bundles:
        try:
            check_files(bundle)
        except BundleError as error:
            problems[bundle.path] = f"not measured: {error}"
        else:
            problems[bundle.path] = ""
    return problems


def compare_bundles(
    bundles: Sequence[Bundle],
    problems: Mapping[Path, str],
    measured: Mapping[Path, Measurement],
    untimed: Mapping[Path, str],
    on_bundle: Callable[[Bundle], None] = lambda bundle: None,
) -> tuple[list[SchemeGroup], list[str]]:
    """Replay every sound bundle and put those of one model and test set into one group; and what the reader must know.

    `problems` are those of `check_bundles`, `measured` the latency of each bundle on this host, where it was measured,
    and `untimed` why it was not.
    """
    groups: dict[tuple[str, str], list[Bundle]] = {}
    for bundle in bundles:
        groups.setdefault((bundle.manifest.source.sha256, _test_set(bundle, problems)), []).append(bundle)
    made = []
    for (sha256, _), members in groups.items():
        rows = []
        for bundle in members:
            on_bundle(bundle)
            row = _row(bundle, problems[bundle.path], measured.get(bundle.path))
            notes = [note for note in (row.note, untimed.get(bundle.path, "")) if note]
            rows.append(row.model_copy(update={"note": "; ".join(notes)}))
        manifest = members[0].manifest
        made.append(
            SchemeGroup(
                model=Path(manifest.source.path).name,
                model_sha256=sha256,
                texts=_texts(manifest),
                rows=tuple(rows),
                front=front_of(rows),
            )
        )
    return made, _remarks(made)


def _texts(manifest: Manifest) -> str:
    if manifest.written is None:
        return f"{manifest.parity.steps} texts of {manifest.golden_texts}"
    return f"{manifest.written.prompts} prompts of {manifest.golden_texts}"


def _remarks(groups: Sequence[SchemeGroup]) -> list[str]:
    remarks = []
    if len(groups) > 1:
        models = len({group.model_sha256 for group in groups})
        remarks.append(
            f"The bundles are of {models} model{'s' if models > 1 else ''} and {len(groups)} combinations of model and "
            "test set: numbers of different ones are kept apart and can't be compared."
        )
    named: dict[str, list[str]] = {}
    for row in (row for group in groups for row in group.rows if row.note):
        named.setdefault(row.note, []).append(row.bundle)
    return remarks + [f"{', '.join(bundles)}: {note}" for note, bundles in named.items()]


def _test_set(bundle: Bundle, problems: Mapping[Path, str]) -> str:
    """What tells test sets apart: the tokens and labels of the golden steps, however far a file has them padded."""
    if problems[bundle.path]:
        return bundle.manifest.golden_texts
    golden = read_golden(bundle.golden_path)
    if texts := unpack_texts(golden):  # its steps have the cache and the lengths of the target's own form
        written = hashlib.sha256(repr((texts.prompts, texts.scored)).encode())
        return f"{bundle.manifest.golden_texts} {written.hexdigest()}"
    digest = hashlib.sha256(golden.labels.tobytes())
    for step in golden.steps:
        digest.update(b"".join(_content(step)))
    return f"{bundle.manifest.golden_texts} {digest.hexdigest()}"


def _content(step: Step) -> list[bytes]:
    """The inputs of a step without padding: where there is a mask, what it does not hide."""
    mask = step.inputs.get("mask")
    if mask is None:
        return [step.inputs[name].tobytes() for name in sorted(step.inputs)]
    real = np.asarray(mask, dtype=np.float32).ravel() > 0
    others = [np.asarray(step.inputs[name]).ravel() for name in sorted(step.inputs) if name != "mask"]
    return [str(real.sum()).encode(), *(values[real].tobytes() for values in others)]


def _row(bundle: Bundle, problem: str, measurement: Measurement | None) -> SchemeRow:
    manifest = bundle.manifest
    row = SchemeRow(
        bundle=manifest.name,
        target=manifest.target,
        via=manifest.via,
        scheme=manifest.scheme,
        size_bytes=bundle.model_size_bytes,
        note=problem,
    )
    if problem:
        return row
    if manifest.parity.verdict == "not-run":
        return row.model_copy(update={"parity": manifest.parity, "note": manifest.parity.note})
    try:
        produced = replay_steps(bundle.model_path, manifest.runtime, bundle.golden_path, timeout_s=_TIMEOUT_S).produced
    except EdgekitError as error:
        return row.model_copy(update={"note": f"not run: {error}"})
    golden = read_golden(bundle.golden_path)
    parity = _parity(bundle, golden, produced)
    facts: dict[str, Any] = {"parity": parity, "written": manifest.written}
    if parity.labels_changed is not None and parity.labels is None:
        facts |= {"accuracy": accuracy_change(golden, produced), "changed_texts": _changed(bundle, golden, produced)}
    if not np.any(golden.labels >= 0) and manifest.written is None:
        facts["note"] = f"parity only: {manifest.accuracy.note or 'its texts have no labels'}"
    if measurement and measurement.samples.latency_ms:
        facts |= {"measurement": measurement, "latency": summarize(measurement.samples.latency_ms)}
    return row.model_copy(update=facts)


def _parity(bundle: Bundle, golden: Golden, produced: Golden) -> Parity:
    """Compared anew, with the tolerances that the file was proven with."""
    recorded = bundle.manifest.parity
    largest = max(1.0, recorded.max_abs_reference or 0.0)
    tolerance = (recorded.tolerance or 0.0) / largest
    cosine = recorded.cosine_tolerance or 0.0
    found = compare_outputs(golden, produced, tolerance, recorded.labels_changed_tolerance, cosine)
    return found.model_copy(update={"evaluated": EVALUATED if is_evaluated(bundle.manifest.runtime) else ""})


def accuracy_change(golden: Golden, produced: Golden) -> AccuracyChange | None:
    """Accuracy beside the source model's, paired by text; None without labels."""
    known = golden.labels >= 0
    texts = int(np.count_nonzero(known))
    if not texts:
        return None
    right, before = (np.argmax(_logits(each), 1)[known] == golden.labels[known] for each in (produced, golden))
    lost, won = int(np.count_nonzero(before & ~right)), int(np.count_nonzero(right & ~before))
    low, high = paired_interval(lost, won, texts)
    return AccuracyChange(
        accuracy=float(np.mean(right)),
        reference_accuracy=float(np.mean(before)),
        texts=texts,
        lost=lost,
        won=won,
        change_points=100 * (won - lost) / texts,
        low_points=100 * low,
        high_points=100 * high,
    )


def _logits(golden: Golden) -> NDArray[np.float64]:
    return stack_outputs(golden.steps, OUTPUT)


def _changed(bundle: Bundle, golden: Golden, produced: Golden) -> tuple[ChangedText, ...]:
    """The texts that got another label, those that the source model was surest of first."""
    before, after, labels = _logits(golden), _logits(produced), read_labels(bundle)
    changed = np.flatnonzero(np.argmax(before, 1) != np.argmax(after, 1))
    ordered = sorted(changed.tolist(), key=lambda index: -_margin(before[index]))[:EXAMPLES]
    if not ordered or not (bundle.path / TOKENIZER).is_file():
        return ()
    own = bundle.manifest.source.kind == "checkpoint"
    processor = (Processor if own else HubTokenizer).load(bundle.path / TOKENIZER)
    return tuple(
        ChangedText(
            text=processor.decode(golden.steps[index].inputs["ids"].reshape(-1).tolist()),
            truth=labels[golden.labels[index]] if golden.labels[index] >= 0 else None,
            from_label=labels[int(np.argmax(before[index]))],
            to_label=labels[int(np.argmax(after[index]))],
            from_margin=_margin(before[index]),
            to_margin=_margin(after[index]),
        )
        for index in ordered
    )


def _margin(logits: NDArray[np.float64]) -> float:
    second, first = np.sort(logits)[-2:]
    return float(first - second)
