"""What to ship, in one sentence with its reason."""

from collections.abc import Sequence

from edgekit.bundle import WrittenTexts
from edgekit.report.numbers import human_size, milliseconds
from edgekit.report.quantization import SchemeGroup, SchemeRow, Sentence

#: points of accuracy that a file may lose and still be advised; of few texts one may be more
MOST_LOST_POINTS = 0.5
#: of a model that writes: the share by which its bits per byte may grow; without held-out texts, of other tokens
MOST_LOST_BITS, MOST_OTHER_TOKENS = 0.01, 0.01


def advise(group: SchemeGroup) -> tuple[Sentence, ...]:
    """For each target, the file with the least size × latency of those that no other beats and lose next to nothing.

    Next to nothing is MOST_LOST_POINTS, or one text where that is more; a target without such a file has no advice.
    """
    targets = dict.fromkeys(row.target for row in group.rows)
    found = (_advise([row for row in group.rows if row.target == target]) for target in targets)
    return tuple(sentence for sentence in found if sentence)


def _advise(rows: Sequence[SchemeRow]) -> Sentence | None:
    front = front_of(rows)
    candidates = [row for row in rows if row.bundle in front and _keeps(row)]
    if not candidates:
        return None
    timed = all(row.latency for row in candidates)
    best = min(candidates, key=lambda row: _cost(row, timed=timed))
    evidence = {
        "target": best.target,
        "bundle": best.bundle,
        "size_bytes": best.size_bytes,
        "p50_ms": best.latency.p50_ms if best.latency else None,
        "timed": timed,
        "candidates": {row.bundle: _cost(row, timed=timed) for row in candidates},
        "most_lost_points": _most_lost(best),
    }
    return Sentence(subject=best.bundle, text=_sentence(best, len(candidates), timed=timed), evidence=evidence)


def front_of(rows: Sequence[SchemeRow]) -> tuple[str, ...]:
    """The bundles that are within their tolerance and that no other beats in size, latency and accuracy at once."""
    return tuple(row.bundle for row in rows if row.usable and not any(_beats(other, row) for other in rows))


def _beats(a: SchemeRow, b: SchemeRow) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better: in size, latency and accuracy, where both have it."""
    if not a.usable or a is b:
        return False
    pairs = [(-a.size_bytes, -b.size_bytes), (_quality(a), _quality(b))]
    if a.latency and b.latency:
        pairs.append((-a.latency.p50_ms, -b.latency.p50_ms))
    elif b.latency:
        return False
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def _quality(row: SchemeRow) -> float:
    """Accuracy where it is known, else the share of labels unchanged."""
    if row.accuracy:
        return row.accuracy.accuracy
    if row.written:
        return row.written.tokens_equal / max(1, row.written.tokens)
    return 1 - (row.parity.labels_changed or 0) / max(1, row.parity.steps) if row.parity else 0.0


def _keeps(row: SchemeRow) -> bool:
    if row.written:
        lost, written = _more_bits(row.written), row.written
        if lost is not None:
            return lost <= MOST_LOST_BITS
        return written.tokens - written.tokens_equal <= MOST_OTHER_TOKENS * written.tokens
    if not row.accuracy:
        return bool(row.parity and not row.parity.labels_changed)
    return row.accuracy.change_points >= -_most_lost(row)


def _more_bits(written: WrittenTexts) -> float | None:
    """The share by which the bits per byte of held-out texts are more than the source's."""
    if not written.scores or not written.reference_scores:
        return None
    return written.scores.bits_per_byte / written.reference_scores.bits_per_byte - 1


def _kept_writing(written: WrittenTexts) -> tuple[str, str]:
    """What a model that writes keeps, and how little all that are advised may lose."""
    lost = _more_bits(written)
    same = f"{written.tokens_equal} of {written.tokens} tokens are the source's"
    if lost is None:
        return f"{same} (no held-out texts: bits per byte are not known)", f"at most {MOST_OTHER_TOKENS:.0%} of tokens"
    return (
        f"its bits per byte change by {100 * lost:+.2f} %, and {same}",
        f"at most {MOST_LOST_BITS:.0%} of bits per byte",
    )


def _most_lost(row: SchemeRow) -> float:
    return max(MOST_LOST_POINTS, 100 / row.accuracy.texts) if row.accuracy else 0.0


def _cost(row: SchemeRow, *, timed: bool) -> float:
    return row.size_bytes * (row.latency.p50_ms if timed and row.latency else 1.0)


def _sentence(best: SchemeRow, count: int, *, timed: bool) -> str:
    what = "size × latency on this host" if timed else "size"
    measured = human_size(best.size_bytes)
    if best.latency and timed:
        measured += f", {milliseconds(best.latency.p50_ms)}"
    if best.accuracy:
        a = best.accuracy
        why = f"its accuracy changes by {a.change_points:+.2f} points ({a.low_points:+.2f} to {a.high_points:+.2f})"
        kept = f"at most {_most_lost(best):.2g} points of accuracy here"
    elif best.written:
        why, kept = _kept_writing(best.written)
    else:
        why, kept = (
            "no label changed on the texts it was tried on (no held-out labels: accuracy is not known)",
            "no label here",
        )
    if count == 1:
        return f"Ship {best.bundle} ({measured}): it is the only file that no other beats and that loses {kept}; {why}."
    return f"Ship {best.bundle} ({measured}): of {count} files that lose {kept}, it has the least {what}; {why}."
