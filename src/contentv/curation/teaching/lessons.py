"""Fits a linear head to what a person says of clips.

Linear in the clip's vector and held back by a ridge penalty, so that a few dozen labels are enough
and the same labels always give the same head. Scores are fitted by least squares, comparisons by
P(better) = sigmoid(score difference) (Bradley-Terry). The penalty is the one of `_PENALTIES` that
does best on labels held out, in five folds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.curation.teaching.heads import LinearHead
from contentv.curation.teaching.labels import Comparisons, Scores

Array: TypeAlias = NDArray[np.float64]

FEWEST = 10
"""Labels; fewer say nothing that could be tested."""

_FOLDS = 5
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_STEPS = 50  # Newton's method needs about ten


@dataclass(frozen=True)
class Lesson:
    """A head and how well it does on labels held out.

    `agreement` is the rank correlation with scores (-1..1), or the part of comparisons that come
    out right (0..1). It flatters a little: the penalty was chosen by the same labels.
    """

    head: LinearHead
    agreement: float
    used: int
    penalty: float


def teach(vectors: Mapping[str, NDArray[np.floating]], labels: Scores | Comparisons) -> Lesson:
    """Fit a head to labels of clips that have a vector, the others left out.

    UserError when fewer than `FEWEST` are left, or all scores are equal.
    """
    if isinstance(labels, Scores):
        names = sorted(labels.clips & vectors.keys())
        known = _matrix(vectors, names)
        return _from_scores(known, np.array([labels.by_clip[name] for name in names]))
    pairs = [pair for pair in labels.pairs if vectors.keys() >= set(pair)]
    better = _matrix(vectors, [pair[0] for pair in pairs])
    return _from_differences(better - _matrix(vectors, [pair[1] for pair in pairs]))


def _matrix(vectors: Mapping[str, NDArray[np.floating]], names: Sequence[str]) -> Array:
    if len(names) < FEWEST:
        raise UserError(f"labels={len(names)}: of clips in the catalogue; needs {FEWEST} or more")
    return np.stack([vectors[name] for name in names]).astype(np.float64)


def _from_scores(vectors: Array, scores: Array) -> Lesson:
    if np.ptp(scores) == 0:
        raise UserError(f"score={scores[0]:g}: all scores are equal; label better and worse clips")
    middle, level, scale = vectors.mean(axis=0), scores.mean(), scores.std()
    targets = (scores - level) / scale

    def agreement(predicted: Array) -> float:
        return _rank_correlation(predicted, targets)

    weights, penalty, agreed = _fitted(vectors - middle, targets, _least_squares, agreement)
    weights = weights * scale
    head = LinearHead(weights, float(level - weights @ middle))
    return Lesson(head, agreed, len(scores), penalty)


def _from_differences(differences: Array) -> Lesson:
    ones = np.ones(len(differences))
    weights, penalty, agreed = _fitted(
        differences, ones, _logistic, lambda predicted: float(np.mean(predicted > 0))
    )
    return Lesson(LinearHead(weights, 0.0), agreed, len(differences), penalty)


_Fit: TypeAlias = Callable[[Array, Array, float], Array]


def _fitted(
    rows: Array, targets: Array, fit: _Fit, agreement: Callable[[Array], float]
) -> tuple[Array, float, float]:
    """Give weights, penalty and held-out agreement.

    Weights lie in the span of the rows (anything else would only cost), so all is computed there.
    """
    basis = np.linalg.svd(rows, full_matrices=False)[2]
    small = rows @ basis.T
    fold = np.arange(len(rows)) % _FOLDS
    best = (-np.inf, 0.0)
    for penalty in _PENALTIES:
        predicted = np.zeros(len(rows))
        for number in range(_FOLDS):
            out = fold == number
            predicted[out] = small[out] @ fit(small[~out], targets[~out], penalty)
        best = max(best, (agreement(predicted), penalty))  # of equals, the greater penalty
    agreed, penalty = best
    weights: Array = basis.T @ fit(small, targets, penalty)
    return weights, penalty, agreed


def _least_squares(rows: Array, targets: Array, penalty: float) -> Array:
    """Minimize mean (row·w - target)² + penalty |w|²."""
    square = rows.T @ rows / len(rows) + penalty * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(square, rows.T @ targets / len(rows)), np.float64)


def _logistic(rows: Array, targets: Array, penalty: float) -> Array:
    """Minimize mean log(1 + exp(-target row·w)) + penalty |w|² / 2, by Newton's method."""
    weights = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        wrong = 1 / (1 + np.exp(np.clip(targets * (rows @ weights), -50, 50)))
        slope = penalty * weights - rows.T @ (targets * wrong) / len(rows)
        bend = (rows.T * (wrong * (1 - wrong))) @ rows / len(rows)
        step = np.linalg.solve(bend + penalty * np.eye(len(weights)), slope)
        weights = weights - step * min(1.0, 5 / max(float(np.abs(rows @ step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's; ties share their mean rank."""
    first, second = _ranks(one), _ranks(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Array) -> Array:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
