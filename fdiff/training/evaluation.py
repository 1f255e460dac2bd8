"""How like the data what is drawn is: distances of distributions in a feature space, and what a classifier reads.

Features are arrays (n, d), float64 within; the space is the caller's: those of a network that was trained on pictures,
or the pixels of small ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def frechet_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """The squared Wasserstein-2 distance of the Gaussians of two sets of features (Heusel et al. 2017, eq. 6).

        |m - w|^2 + tr(C + S - 2 (C S)^(1/2)),  m and C the mean and covariance of one, w and S of the other

    It is called FID where the features are Inception's. Raises ValueError for sets that do not fit.
    """
    from scipy import linalg

    real, drawn = _checked(real, drawn)
    mean, covariance = _moments(real)
    other, spread = _moments(drawn)
    # tr (C S)^(1/2) is the sum of the singular values of C^(1/2) S^(1/2), which stays real where C or S is singular.
    shared = linalg.svdvals(_root(covariance) @ _root(spread)).sum()
    return float(np.sum((mean - other) ** 2) + np.trace(covariance) + np.trace(spread) - 2 * shared)


def kernel_distance(
    real: np.ndarray, drawn: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(mean, standard deviation) over subsets of the squared maximum mean discrepancy (Binkowski et al. 2018, sec. 4).

        k(x, y) = (x . y / d + 1)^3,  without bias:
        sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (n (n - 1)) - 2 mean k(x_i, y_j)

    It is called KID where the features are Inception's. It has no bias, so it suits small sets; it may be below 0.
    Raises ValueError for sets that do not fit.
    """
    real, drawn = _checked(real, drawn)
    random, size = np.random.default_rng(seed), min(size, len(real), len(drawn))
    found = []
    for _ in range(subsets):
        x, y = (each[random.choice(len(each), size, replace=False)] for each in (real, drawn))
        within = sum((kernel.sum() - np.trace(kernel)) / (size * (size - 1)) for kernel in (_cubic(x, x), _cubic(y, y)))
        found.append(within - 2 * _cubic(x, y).mean())
    return float(np.mean(found)), float(np.std(found))


class Coverage(NamedTuple):
    """precision: the share of what is drawn that looks real; recall: the share of what is real that is drawn."""

    precision: float
    recall: float


def precision_recall(real: np.ndarray, drawn: np.ndarray, neighbours: int = 3) -> Coverage:
    """Shares of one set that lie within the k-th nearest neighbour's distance of a point of the other.

    (Kynkaanniemi et al. 2019, eq. 1 and 2.) Raises ValueError for sets that do not fit, or fewer points than k + 1.
    """
    from scipy.spatial import cKDTree

    real, drawn = _checked(real, drawn)
    if min(len(real), len(drawn)) <= neighbours:
        raise ValueError(f"{min(len(real), len(drawn))} points have no {neighbours} neighbours each; give more")

    def within(points: np.ndarray, others: np.ndarray) -> float:
        radius = cKDTree(others).query(others, neighbours + 1)[0][:, -1]  # the nearest is the point itself
        distance = np.sqrt(np.maximum(_squared(points, others), 0))
        return float((distance <= radius).any(1).mean())

    return Coverage(within(drawn, real), within(real, drawn))


def accuracy(read: np.ndarray, asked: np.ndarray) -> float:
    """The share of labels that are read as asked. Raises ValueError for another number of each."""
    read, asked = np.asarray(read), np.asarray(asked)
    if read.shape != asked.shape or not read.size:
        raise ValueError(f"{read.size} labels were read for {asked.size} that were asked for; give one for each")
    return float(np.mean(read == asked))


def _checked(real: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, two = (np.asarray(each, np.float64) for each in (real, drawn))
    if one.ndim != 2 or two.ndim != 2 or one.shape[1] != two.shape[1] or min(len(one), len(two)) < 2:
        raise ValueError(f"features of shapes {one.shape} and {two.shape} cannot be compared; make them (n, d), "
                         "with n above 1")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("features hold what is not a finite number; look at the pictures that they are of")
    return one, two


def _moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.mean(0), np.atleast_2d(np.cov(points, rowvar=False))


def _root(matrix: np.ndarray) -> np.ndarray:
    """The root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances (n, m)."""
    return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
