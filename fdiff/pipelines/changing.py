"""Prompts that change while a picture is drawn, and prompts that add up: which texts a run reads, and at which rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.pipelines.plans import count_rows
from fdiff.plan import Plan
from fdiff.prompt_syntax import composition, first_change, schedule
from fdiff.prompts import Encoded
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler

Texts = Mapping[str, Sequence[str]]  # b prompts for each text encoder, by the name of the option that it reads
PROBE = 4  # steps, the fewest that every scheduler can take


class Script(NamedTuple):
    """What b prompts are in a run: `texts[which[i]]` in step i, 0 being the first."""

    texts: Sequence[Texts]
    which: np.ndarray

    @property
    def all(self) -> Texts:
        """Every text, in the order of `texts`."""
        return {name: [text for at in self.texts for text in at[name]] for name in self.texts[0]}


def encode(
    encoded: Callable[[Texts, Texts], tuple[Encoded, Encoded]], texts: Texts, against: Texts, steps: np.ndarray
) -> tuple[Encoded | guidance.Sum, Encoded]:
    """What is encoded of prompts and of negative ones that change and add up, in one call of `encoded`.

    steps: (n,) which step each row is, see `steps_of_rows`. Raises ValueError for negative prompts with AND, and as
    `parts` does.
    """
    if any(len(composition(prompt)) > 1 for prompts in against.values() for prompt in prompts):
        raise ValueError("the negative prompt has AND, which adds up what is to be drawn; write it in small letters")
    added, weights = parts(texts)
    count = int(steps[-1]) + 1
    scripts, last = [script(one, count) for one in added], script(against, count)
    told = [one.all for one in scripts]
    positive, negative = encoded({name: [text for one in told for text in one[name]] for name in texts}, last.all)
    found, end = [], 0
    for one, read in zip(scripts, told, strict=True):
        start, end = end, end + len(read["prompt"])
        part = positive if len(scripts) == 1 else Encoded(*(leaf[start:end] for leaf in positive))
        found.append(_by_row(part, one, steps))
    summed = guidance.Sum(tuple(found), tuple(jnp.asarray(weight) for weight in weights))
    return found[0] if len(found) == 1 else summed, _by_row(negative, last, steps)


def _by_row(encoded: Encoded, script: Script, steps: np.ndarray) -> Encoded:
    """What is encoded of a script, (m b, ...), as (b, ...), which is another at each row where it changes."""
    count = len(script.texts)

    def laid(leaf: jax.Array) -> ByRow:
        return ByRow(leaf.reshape(count, -1, *leaf.shape[1:]), script.which[steps])

    return encoded if count == 1 else jax.tree.map(laid, encoded)


def steps_of_rows(scheduler: Scheduler, plan: Plan) -> np.ndarray:
    """(n,): which step of the run each of the n rows belongs to, 0 being the first.

    The two rows of a step of Heun's kind are one step, as are the two that PNDM begins with. Steps are those that are
    done: where a strength leaves a part of a run, or it begins or ends in the middle, they are counted there.
    """
    n, laid = count_rows(plan), len(scheduler.plan(PROBE))
    steps = (n + 1) // 2 if laid == 2 * PROBE - 1 else min(max(n - (laid - PROBE), 1), n)
    return np.arange(n) * steps // n


def script(read: Texts, steps: int) -> Script:
    """What prompts with [from:to:when] and [a|b] are in each of so many steps."""
    def each_step(prompt: str) -> list[str]:
        if first_change(prompt) is None:
            return [prompt] * steps
        return [text for part, text in schedule(prompt, steps) for _ in part]

    lists = {name: [each_step(prompt) for prompt in prompts] for name, prompts in read.items()}
    at = [tuple(tuple(one[i] for one in each) for each in lists.values()) for i in range(steps)]
    found = {texts: i for i, texts in enumerate(dict.fromkeys(at))}
    return Script([dict(zip(read, texts, strict=True)) for texts in found], np.array([found[one] for one in at]))


def parts(read: Texts) -> tuple[list[Texts], list[np.ndarray]]:
    """What AND adds up: k times b prompts, and k times their weights (b,), 0 where a prompt has fewer parts.

    Raises ValueError where the prompts of one picture for two encoders have several parts, and not as many.
    """
    split = {name: [composition(prompt) for prompt in prompts] for name, prompts in read.items()}
    first = next(iter(split.values()))
    for name, each in split.items():
        for one, of_first in zip(each, first, strict=True):
            if len(one) not in (1, len(of_first)):
                raise ValueError(f"{name} has {len(one)} parts between its ANDs and prompt has {len(of_first)}; write "
                                 "as many, or one alone")
    count = max(len(one) for one in first)

    def part(one: list[tuple[str, float]], i: int) -> str:
        return one[i if i < len(one) else 0][0]

    texts: list[Texts] = [{name: [part(one, i) for one in each] for name, each in split.items()} for i in range(count)]
    weights = [[one[i][1] if i < len(one) else 0.0 for one in first] for i in range(count)]
    return texts, [np.array(each, np.float32) for each in weights]
