"""How far a quantized file's answers are from the source model's, over texts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float64]  # [texts, labels]


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Differences of logits over all texts.

    `snr_db` is the signal-to-noise ratio of the logits in decibels, `cosine` the mean cosine of a text's logits, `kl`
    the mean Kullback-Leibler divergence of a text's probabilities from the reference's in nats, `labels_changed` how
    many texts get another label. Equal logits have an `snr_db` of None (no noise); so has everything, `cosine` and `kl`
    too, where a value is NaN or infinite, which `non_finite` counts.
    """

    max_abs_difference: float | None
    snr_db: float | None
    cosine: float | None
    kl: float | None
    labels_changed: int
    non_finite: int


def measure_distance(reference: Logits, logits: Logits) -> Distance:
    """Compare the logits of all texts with the reference's."""
    non_finite = int(np.count_nonzero(~np.isfinite(logits)))
    changed = int(np.count_nonzero(np.argmax(logits, 1) != np.argmax(reference, 1)))
    if non_finite:
        return Distance(
            max_abs_difference=None, snr_db=None, cosine=None, kl=None, labels_changed=changed, non_finite=non_finite
        )
    difference = logits - reference
    noise, signal = float(np.sum(difference**2)), float(np.sum(reference**2))
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(logits, axis=1)
    cosines = np.sum(reference * logits, axis=1) / np.maximum(norms, 1e-30)
    return Distance(
        max_abs_difference=float(np.max(np.abs(difference))),
        snr_db=10 * float(np.log10(signal / noise)) if noise and signal else None,
        cosine=float(np.mean(cosines)),
        kl=float(np.mean(_divergence(reference, logits))),
        labels_changed=changed,
        non_finite=0,
    )


def _divergence(reference: Logits, logits: Logits) -> NDArray[np.float64]:
    p, q = _log_softmax(reference), _log_softmax(logits)
    return np.asarray(np.maximum(np.sum(np.exp(p) * (p - q), axis=1), 0.0))


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True)))
