"""What benchmarks measure time with."""

import time
from collections.abc import Callable
from typing import Any


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
