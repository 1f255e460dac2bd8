"""What a number or a word may be, so that the command line and programs refuse the same in the same words."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Limits(NamedTuple):
    """A number is at least `least`, above `above` and below `below`; a word is one of `choices`; None says nothing."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, which begins with the name, for a value that is not within; None always is."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}; give a finite number")
        if isinstance(value, int | float):
            fits = ((self.least is None or value >= self.least) and (self.above is None or value > self.above)
                    and (self.below is None or value < self.below))  # fmt: skip
            if not fits:
                raise ValueError(f"{name} is {value}; it must be {self.words()}")
        if isinstance(value, str) and self.choices and value not in self.choices:
            raise ValueError(f"{name} is {value!r}; it can be {', '.join(filter(None, self.choices))}")

    def words(self) -> str:
        """Such as: 0 or more and below 1."""
        said = [
            None if self.least is None else f"{self.least} or more",
            None if self.above is None else f"above {self.above}",
            None if self.below is None else f"below {self.below}",
        ]
        return " and ".join(filter(None, said))
