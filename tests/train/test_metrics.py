import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from edgekit.train.metrics import classification_metrics


def test_equal_to_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 6, 300), generator.integers(0, 7, 300)
    predicted = np.where(generator.random(300) < 0.5, truth, predicted)
    metrics = classification_metrics(truth, predicted, [f"label{n}" for n in range(8)])
    assert metrics.examples == 300
    assert metrics.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    table = precision_recall_fscore_support(truth, predicted, labels=range(8), zero_division=0)
    for row, expected in zip(metrics.labels, zip(*table, strict=True), strict=True):
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(expected)


def test_confusions_most_frequent_first() -> None:
    truth = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([1, 1, 0, 1, 0, 0])
    metrics = classification_metrics(truth, predicted, ["a", "b", "c"])
    assert [(c.label, c.predicted, c.count) for c in metrics.confusions] == [("a", "b", 2), ("c", "a", 2)]


def test_nothing_wrong() -> None:
    metrics = classification_metrics(np.array([0, 1]), np.array([0, 1]), ["a", "b"])
    assert (metrics.accuracy, metrics.macro_f1, metrics.confusions) == (1.0, 1.0, ())
