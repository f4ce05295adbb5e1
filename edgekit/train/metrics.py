"""What a classifier gets right and wrong on held-out examples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

MAX_CONFUSIONS = 20


class LabelMetrics(BaseModel):
    """Precision, recall and F1 of one label; `support` is the number of its examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Confusion(BaseModel):
    """How many examples of `label` were taken for `predicted`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    predicted: str
    count: int


class ClassificationMetrics(BaseModel):
    """Accuracy and macro-F1 (over labels that occur or were predicted), each label, the most frequent confusions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int
    accuracy: float
    macro_f1: float
    labels: tuple[LabelMetrics, ...]
    confusions: tuple[Confusion, ...]


def classification_metrics(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], labels: Sequence[str]
) -> ClassificationMetrics:
    """Compare two arrays of label indices, int [n], n ≥ 1; a ratio without anything to divide by is 0."""
    table = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(table, (truth, predicted), 1)
    right, support, answers = table.diagonal(), table.sum(1), table.sum(0)
    rows = tuple(
        LabelMetrics(
            label=label,
            precision=_ratio(right[index], answers[index]),
            recall=_ratio(right[index], support[index]),
            f1=_ratio(2 * right[index], support[index] + answers[index]),
            support=int(support[index]),
        )
        for index, label in enumerate(labels)
    )
    occurring = [row.f1 for row, count in zip(rows, support + answers, strict=True) if count]
    return ClassificationMetrics(
        examples=len(truth),
        accuracy=float(right.sum() / len(truth)),
        macro_f1=float(np.mean(occurring)),
        labels=rows,
        confusions=_confusions(table, labels),
    )


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0


def _confusions(table: NDArray[np.int64], labels: Sequence[str]) -> tuple[Confusion, ...]:
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    pairs = sorted(zip(*np.nonzero(wrong), strict=True), key=lambda pair: (-wrong[pair], pair))
    return tuple(
        Confusion(label=labels[i], predicted=labels[j], count=int(wrong[i, j])) for i, j in pairs[:MAX_CONFUSIONS]
    )
