"""Which noise goes with which sample, so that the paths between them cross less."""

from __future__ import annotations

import numpy as np


def optimal(x0: np.ndarray, noise: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The noise (b, ...) in the order in which it lies nearest to the samples x0 (b, ...), all of them together.

        the permutation p with the least sum_i |x0_i - noise_p(i)|^2

    It is the optimal transport between the two batches, and a flow that is trained on such pairs is straighter and
    takes fewer steps (Tong et al. 2023, eq. 16; Pooladian et al. 2023). Where there are labels (b,), noise changes
    places among samples of one label alone: what a class is drawn from must be all of the noise.
    """
    from scipy.optimize import linear_sum_assignment

    ordered = noise.copy()
    groups = np.zeros(len(x0)) if labels is None else labels
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        far, near = x0[rows].reshape(len(rows), -1).astype(np.float32), noise[rows].reshape(len(rows), -1)
        ordered[rows] = noise[rows][linear_sum_assignment(-far @ near.T)[1]]  # whose squares are the same in any order
    return ordered
