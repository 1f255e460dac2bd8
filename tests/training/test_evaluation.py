"""Distances of distributions, against their values for Gaussians."""

import numpy as np
import pytest

from fdiff.training import evaluation

RANDOM = np.random.default_rng(0)


def gaussian(count, mean, root):
    """Points whose sample mean and covariance are exactly those asked for."""
    points = RANDOM.normal(size=(count, len(mean)))
    points = (points - points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return points @ np.asarray(root).T + mean


def test_the_frechet_distance_of_gaussians():
    one = gaussian(500, [1.0, 2.0], np.diag([1.0, 2.0]))
    two = gaussian(300, [4.0, 6.0], np.diag([3.0, 0.5]))
    assert evaluation.frechet_distance(one, two) == pytest.approx(25 + (3 - 1) ** 2 + (2 - 0.5) ** 2)
    assert evaluation.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_covariances_that_do_not_commute():
    root, other = np.array([[2.0, 0.0], [1.5, 0.5]]), np.array([[1.0, 0.3], [-0.6, 1.2]])
    one, two = gaussian(400, [0.0, 0.0], root), gaussian(400, [0.0, 0.0], other)
    c, s = root @ root.T, other @ other.T
    values = np.linalg.eigvals(c @ s)  # those of (C S)^(1/2) are their roots
    wanted = np.trace(c) + np.trace(s) - 2 * np.sqrt(values).sum()
    assert evaluation.frechet_distance(one, two) == pytest.approx(wanted)


def test_fewer_points_than_features():
    points = RANDOM.normal(size=(10, 40))
    assert evaluation.frechet_distance(points, points + 2.0) == pytest.approx(4 * 40)


def test_the_kernel_distance_has_no_bias():
    same = [evaluation.kernel_distance(RANDOM.normal(size=(50, 4)), RANDOM.normal(size=(50, 4)), subsets=1)[0]
            for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20
    # k = (x y + 1)^3 in one dimension: E k(x, x') of N(m, 1) and N(n, 1) by the moments 1, m, m^2 + 1, m^3 + 3 m
    def moments(m):
        return np.array([1, m, m**2 + 1, m**3 + 3 * m])

    weights = np.array([1, 3, 3, 1])
    wanted = (weights * (moments(0.0) - moments(1.0)) ** 2).sum()
    far, _ = evaluation.kernel_distance(RANDOM.normal(size=(20_000, 1)), 1 + RANDOM.normal(size=(20_000, 1)))
    assert far == pytest.approx(wanted, rel=0.1)


def test_precision_and_recall():
    real = RANDOM.normal(size=(400, 2)) + np.where(np.arange(400) < 200, 0, 50)[:, None]
    half = RANDOM.normal(size=(400, 2))  # draws one of two clusters
    precision, recall = evaluation.precision_recall(real, half)
    assert precision > 0.9 and 0.4 < recall < 0.5
    precision, recall = evaluation.precision_recall(real, np.concatenate([real[::2], real[::2] + 1000]))
    assert precision == pytest.approx(0.5) and recall > 0.9
    assert evaluation.precision_recall(real, real) == (1, 1)


def test_accuracy_and_what_does_not_fit():
    assert evaluation.accuracy(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.75
    for call, words in (
        (lambda: evaluation.frechet_distance(np.zeros((5, 3)), np.zeros((5, 4))), "cannot be compared"),
        (lambda: evaluation.frechet_distance(np.full((5, 3), np.nan), np.zeros((5, 3))), "finite"),
        (lambda: evaluation.precision_recall(np.zeros((3, 2)), np.zeros((9, 2))), "neighbours"),
        (lambda: evaluation.accuracy(np.zeros(3), np.zeros(4)), "3 labels"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
