"""Cases of a test of which the ordinary runs try some, and `-m sweep` the rest."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], every: int = 0, count: int = 1) -> list[Any]:
    """The cases, all marked `sweep` but the first `count`, or every so manyth where that is given."""
    return [
        case if (i % every == 0 if every else i < count) else pytest.param(*_values(case), marks=pytest.mark.sweep)
        for i, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
