"""What to ship, in one sentence with its reason."""

from edgekit.report.numbers import human_size, milliseconds
from edgekit.report.quantization import SchemeGroup, SchemeRow, Sentence

#: points of accuracy that a file may lose and still be advised, where its interval does not include no loss
MOST_LOST_POINTS = 0.5


def advise(group: SchemeGroup) -> Sentence | None:
    """The file on the front with the smallest size × latency among those that lose no accuracy for sure."""
    candidates = [row for row in group.rows if row.bundle in group.front and _keeps(row)]
    if not candidates:
        return None
    timed = all(row.latency for row in candidates)
    best = min(candidates, key=lambda row: _cost(row, timed=timed))
    evidence = {
        "bundle": best.bundle,
        "size_bytes": best.size_bytes,
        "p50_ms": best.latency.p50_ms if best.latency else None,
        "timed": timed,
        "candidates": {row.bundle: _cost(row, timed=timed) for row in candidates},
        "most_lost_points": MOST_LOST_POINTS,
    }
    return Sentence(subject=best.bundle, text=_sentence(best, len(candidates), timed=timed), evidence=evidence)


def _keeps(row: SchemeRow) -> bool:
    if not row.accuracy:
        return bool(row.parity and not row.parity.labels_changed)
    return row.accuracy.high_points >= 0 or row.accuracy.change_points >= -MOST_LOST_POINTS


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
        kept = "no more accuracy than these texts can tell"
    else:
        why, kept = (
            "no label changed on the texts it was tried on (no held-out labels: accuracy is not known)",
            "no label",
        )
    if count == 1:
        return f"Ship {best.bundle} ({measured}): it is the only file that no other beats and that loses {kept}; {why}."
    return f"Ship {best.bundle} ({measured}): of {count} files that lose {kept}, it has the least {what}; {why}."
