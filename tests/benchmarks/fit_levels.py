"""Where should a run of n calls look? The levels of `fdiff.spacing.full_order_levels`, found and printed.

They are those that make the run's error least, in the mean of its logarithm over two dozen mixtures of Gaussians drawn
at random: 1 to 16 modes in 2 to 16 dimensions, wide and narrow, with even, steep and flat spectra; from pure noise, and
from the noise that Stable Diffusion begins with. None of them is a problem of bench_samplers.py. A little smoothness is
asked for as well. Mixtures drawn from another seed say how well the levels serve what they were not found on.

With --floor they are those of a model that knows no less noise than Stable Diffusion's, which its last call is told;
1 is then the noisiest level, and 0 that one.

    python tests/benchmarks/fit_levels.py [--floor] 4 5 6 7 8 9 10 12 15 20
"""

import sys

import numpy as np
import scipy.optimize

from fdiff import solvers
from fdiff.plan import Grid, tabulate
from tests.benchmarks.bench_samplers import Problem, level, modes, solved

ORDER = 4
BEGUN = (1.0, float(1 / (1 + np.divide(*level("epsilon", 999)))))  # in flow time
FLOOR = float(1 / (1 + np.divide(*level("epsilon", 0))))  # the least noise that Stable Diffusion was trained on
ROUGH = 0.15  # the weight of the second differences of log step lengths


def family(seed: int, starts: tuple[float, ...], count: int = 24) -> list[tuple[float, Problem]]:
    """Where each run begins, and what it should come to."""
    found = []
    for begun in starts:
        for i in range(count):
            random = np.random.default_rng(seed + i)
            many, width = random.choice([1, 2, 3, 5, 8, 16]), int(random.choice([2, 3, 4, 8, 16]))
            narrow, rough = np.exp(random.uniform(np.log(0.1), np.log(0.9))), random.uniform(0, 2)
            low = int(random.choice([0, 0, max(1, width // 4), max(1, width // 2)]))
            mixture = modes(seed + i, int(many), width, 1.0 if many == 1 else narrow, rough, low)
            found.append((begun, solved("flow", mixture, float(np.arctan2(begun, 1 - begun)), 12)))
    return found


def shares(gaps: np.ndarray) -> np.ndarray:
    """n falling levels, 1 first, from the logarithms of all but the last step's length, over the last one's."""
    lengths = np.exp(np.append(gaps, 0.0))
    return 1 - np.append(0, np.cumsum(lengths)[:-1]) / lengths.sum()


def logs(problems: list[tuple[float, Problem]], gaps: np.ndarray, floor: float) -> np.ndarray:
    """The logarithm of each run's error."""
    made = {}
    for begun in {begun for begun, _ in problems}:
        s = floor + (begun - floor) * np.append(shares(gaps), [0.0] * bool(floor))
        grid = Grid(1000 * s, 1 - s, s, 1 - np.append(s[1:], 0), np.append(s[1:], 0))
        made[begun] = tabulate(solvers.full_order(ORDER), grid, "flow_prediction")
    with np.errstate(all="ignore"):
        found = [one.error(made[begun]) for begun, one in problems]
    return np.log(np.minimum(np.nan_to_num(found, nan=1e3), 1e3))


def main() -> None:
    """Print a row for each number of calls."""
    floor = FLOOR * ("--floor" in sys.argv)
    known, fresh = (family(seed, BEGUN[1:] if floor else BEGUN) for seed in (1000, 5000))
    curve = np.array([1, 0.86, 0.65, 0.44, 0.28, 0.16, 0.08, 0.03, 0.0])  # where to begin; then where the last n ended
    for n in (int(word) for word in sys.argv[1:] if word != "--floor"):
        m = n - bool(floor)  # how many steps; the last is what the others are measured by
        lengths = -np.diff(np.interp(np.arange(m + 1) / m, np.linspace(0, 1, len(curve)), curve))
        gaps = np.log(lengths[:-1] / lengths[-1])
        for _ in range(6):
            begun = logs(known, gaps, floor)

            def residual(gaps: np.ndarray, begun: np.ndarray = begun) -> np.ndarray:
                return np.append(np.log1p(np.exp(logs(known, gaps, floor) - begun)), ROUGH * np.diff(gaps, 2))

            gaps = scipy.optimize.least_squares(residual, gaps, max_nfev=8, diff_step=1e-4).x
        curve = np.append(shares(gaps), 0.0)
        levels = ", ".join(f"{s:.4g}" for s in curve[:-1])
        errors = (np.exp(logs(problems, gaps, floor).mean()) for problems in (known, fresh))
        print(f"{m}: ({levels}),  # {' and, fresh, '.join(f'{error:.5f}' for error in errors)}", flush=True)


if __name__ == "__main__":
    main()
