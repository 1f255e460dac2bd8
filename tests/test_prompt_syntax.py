"""Chunks, changing prompts and sums of prompts, as A1111's web UI reads them."""

import itertools
import math
import random

import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import guidance, prompts
from fdiff.prompt_syntax import parse_chunks


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat BREAK a dog", [[("a cat", 1)], [("a dog", 1)]]),
        ("a (cat BREAK\n dog:1.5) BREAK", [[("a ", 1), ("cat", 1.5)], [("dog", 1.5)]]),
        ("BREAK BREAK a", [[], [], [("a", 1)]]),
        ("(a)BREAK(b)", [[("a", 1.1)], [("b", 1.1)]]),
        ("BREAKS UNBREAK break", [[("BREAKS UNBREAK break", 1)]]),
        ("BREAK", [[]]),
        ("", [[]]),
    ],
)
def test_breaks(prompt, expected):
    assert parse_chunks(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat AND a dog:0.5", [("a cat", 1), (" a dog", 0.5)]),
        ("a (cat:1.2) :-.5 AND\nb: 2. AND c", [("a (cat:1.2)", -0.5), ("\nb", 2), (" c", 1)]),
        ("a AND (b:1.2)", [("a", 1), (" (b:1.2)", 1)]),
        ("ANDY and SAND", [("ANDY and SAND", 1)]),
        ("at 10:30", [("at 10:30", 1)]),
        (" AND ", [("", 1), ("", 1)]),
    ],
)
def test_sums(prompt, expected):
    assert prompts.composition(prompt) == expected


def test_what_a_sum_draws():
    """As Composable Diffusion has it: each prompt's difference from the negative one, weighted and added."""
    rng = np.random.default_rng(0)
    x, negative, *positive = (jnp.asarray(rng.standard_normal((2, 4, 4, 3)), jnp.float32) for _ in range(5))

    def network(x, t, condition):
        return jnp.sin(x + condition) * t

    weights, scale = jnp.array([1.0, 0.5, -0.3]), 7.5
    numbers = (1 - scale * weights.sum(), *(scale * weights))
    found = guidance.composed(network, (negative, *positive), numbers)(x, 2.0)
    without = network(x, 2.0, negative)
    want = without + sum(
        weight * scale * (network(x, 2.0, one) - without) for weight, one in zip(weights, positive, strict=True)
    )
    np.testing.assert_allclose(found, want, atol=1e-4)


def steps(prompt, count=10):
    """The text at every step."""
    found = prompts.schedule(prompt, count)
    assert [step for span, _ in found for step in span] == list(range(count))
    assert all(one[1] != other[1] for one, other in itertools.pairwise(found))
    return [text for span, text in found for _ in span]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a test", [("a test", 10)]),
        ("a [red:blue:4] cat", [("a red cat", 4), ("a blue cat", 6)]),
        ("a [red:blue:.25] cat", [("a red cat", 2), ("a blue cat", 8)]),  # the part of a step does not count
        ("a[ hat: 3 ]", [("a", 3), ("a hat", 7)]),
        ("a[ hat::3]", [("a hat", 3), ("a", 7)]),
        ("[a : b : 1] c", [("a  c", 1), (" b  c", 9)]),
        ("[a:b:1.0]", [("a", 10)]),  # a share, and all of it
        ("[a:b:1]", [("a", 1), ("b", 9)]),
        ("[a:b:0][c:d:-3][e:f:99][g:h:1e999]", [("bdeg", 10)]),
        ("a[b:[c:d:2]:1]e", [("abe", 1), ("ace", 1), ("ade", 8)]),
        ("[[a|b]:c:2]", [("a", 1), ("b", 1), ("c", 8)]),
        ("[(a:1.2):3]", [("", 3), ("(a:1.2)", 7)]),
        ("[[less]:2] \\[x:y:2\\]", [(" \\[x:y:2\\]", 2), ("[less] \\[x:y:2\\]", 8)]),
        ("a [unbalanced", [("a [unbalanced", 10)]),
        ("((a][:b:c [d:3]", [("((a][:b:c ", 3), ("((a][:b:c d", 7)]),
        ("[a:b] [a:b:c:3] (a:b:3) [:]", [("[a:b] [a:b:c:3] (a:b:3) [:]", 10)]),  # none of them says when
        ("[a:b|c] [d:3]", [("[a:b|c] [d:3]", 10)]),  # as there, a stray | makes the whole text
        ("a|b [d:3]", [("a|b [d:3]", 10)]),
        ("", [("", 10)]),
    ],
)
def test_prompts_that_change(prompt, spans):
    assert steps(prompt) == [text for text, count in spans for _ in range(count)]


def test_prompts_that_take_turns():
    assert steps("a [cow|horse|(man:1.1)]", 4) == ["a cow", "a horse", "a (man:1.1)", "a cow"]
    assert steps("[fe|]male", 3) == ["female", "male", "female"]
    assert steps("[fe|||]male", 6) == ["female", "male", "male", "male", "female", "male"]


def test_the_example_of_the_web_ui():
    """The five texts of its documentation, each up to a number of a hundred steps."""
    found = prompts.schedule(
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
        "[ in background:0.25] [shoddy:masterful:0.5]", 100
    )
    assert [(span.stop, text.removeprefix("fantasy landscape with a ")) for span, text in found] == [
        (25, "mountain and an oak in foreground shoddy"),
        (50, "lake and an oak in foreground in background shoddy"),
        (60, "lake and an oak in foreground in background masterful"),
        (75, "lake and an oak in background masterful"),
        (100, "lake and a christmas tree in background masterful"),
    ]


def written(rng, depth):
    """(a prompt, what it is at step i of n): by what it was made of."""
    if not depth or rng.random() < 0.2:
        text = rng.choice(["a", " big dog", "", "7", "x\\]y", " AND "])
        return text, lambda i, n: text
    parts = [written(rng, depth - 1) for _ in range(rng.randint(2, 3))]
    texts, values = zip(*parts, strict=True)
    kind = rng.choice(["change", "turns", "weight", "row"])
    if kind == "change":
        share = rng.random() < 0.5
        when = rng.choice([0.0, 0.25, 0.5, 1.0]) if share else rng.randint(0, 12)
        start, *end = values[: rng.randint(1, 2)]
        source = ":".join([*texts[: 1 + len(end)], str(when)])

        def value(i, n):
            over = i >= math.floor(when * n if share else when)
            return (end[0] if end else start)(i, n) if over else start(i, n) if end else ""

        return f"[{source}]", value
    if kind == "turns":
        return f"[{'|'.join(texts)}]", lambda i, n: values[i % len(values)](i, n)
    if kind == "weight":
        return f"({texts[0]}:{texts[1]})", lambda i, n: f"({values[0](i, n)}:{values[1](i, n)})"
    return "".join(texts), lambda i, n: "".join(value(i, n) for value in values)


def test_changes_within_changes():
    rng = random.Random(0)
    for _ in range(500):
        prompt, value = written(rng, rng.randint(1, 4))
        assert steps(prompt) == [value(i, 10) for i in range(10)], prompt


def test_nesting_without_end():
    """Deep brackets take time in proportion, and no stack."""
    deep = 20_000
    assert prompts.schedule("[" * deep, 5) == [(range(5), "[" * deep)]
    assert steps("[" * deep + "a" + ":1]" * deep, 2) == ["", "a"]
    assert steps("(" * deep + "a" + ")" * deep, 1) == ["(" * deep + "a" + ")" * deep]


@pytest.mark.parametrize("wrong", [0, -1, 2.5, None])
def test_a_number_of_steps(wrong):
    with pytest.raises(ValueError, match="num_inference_steps is "):
        prompts.schedule("a", wrong)
