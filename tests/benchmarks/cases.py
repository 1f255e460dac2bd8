"""Every case that there is."""

from tests.benchmarks import limits, networks, whole

CASES = [*limits.CASES, *networks.CASES, *whole.CASES]
