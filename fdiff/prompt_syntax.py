r"""What people write into prompts besides words, as A1111's web UI made it common: texts alone, no model.

    (red:1.3) [dull]            weights                    parse_weights
    a cat BREAK a dog           chunks of their own        parse_chunks
    [cat:dog:0.4] [cat|dog]     prompts that change        schedule
    a cat AND a dog:0.5         prompts that add up        composition

Write \( \) \[ \] \\ for the signs themselves.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Union

from fdiff.spacing import check_steps

MORE = 1.1  # what a pair of round brackets multiplies by, and a pair of square ones divides by
PIECES = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<bracket>[()\[\]])"
    r"|(?P<text>[^()\[\]\\:]+|.)",
    re.DOTALL,
)
BREAK = re.compile(r"\s*\bBREAK\b\s*")
AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r"\s*:\s*([+-]?(?:\d+\.?|\d*\.\d+))\s*$")
TOKENS = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]|\\.)+|\\$", re.DOTALL)
NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")


class Change(NamedTuple):
    """A part of a prompt that is not the same at all steps."""

    options: tuple["Items", ...]  # (before, after), or, without `when`, what takes turns
    when: str  # the number of steps, or with a point the share of them, after which the second is read
    where: tuple[int, int]  # of the prompt


Items = Sequence[Union[str, Change, "Items"]]

def parse_weights(prompt: str) -> list[tuple[str, float]]:
    r"""Split a prompt at its brackets into texts and their weights.

    (text) weighs 1.1 times more, [text] 1.1 times less, (text:1.5) 1.5 times more; brackets nest, and one
    that never closes reaches to the end. Write \( \) \[ \] \\ for the signs themselves.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where each bracket that is still open began

    def close(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        weights[start:] = [weight * factor for weight in weights[start:]]

    for piece in PIECES.finditer(prompt):
        bracket = piece["bracket"]
        if bracket in opened:
            opened[bracket].append(len(texts))
        elif bracket == ")" and opened["("]:
            close("(", MORE)
        elif bracket == "]" and opened["["]:
            close("[", 1 / MORE)
        elif piece["weight"] and opened["("]:
            close("(", float(piece["weight"]))
        else:
            texts.append(piece[0] if piece["escaped"] is None else piece["escaped"])
            weights.append(1.0)
    while opened["("]:
        close("(", MORE)
    while opened["["]:
        close("[", 1 / MORE)

    merged: list[tuple[str, float]] = []
    for text, weight in zip(texts, weights, strict=True):
        if merged and merged[-1][1] == weight:
            text = merged.pop()[0] + text
        merged.append((text, weight))
    return merged



def parse_chunks(prompt: str) -> list[list[tuple[str, float]]]:
    """The texts and weights of each chunk: BREAK begins a new one, within brackets too.

    Nothing before the first is an empty chunk, as in the web UI; nothing behind the last is none.
    """
    chunks: list[list[tuple[str, float]]] = [[]]
    for text, weight in parse_weights(prompt):
        for i, part in enumerate(BREAK.split(text)):
            if i:
                chunks.append([])
            if part:
                chunks[-1].append((part, weight))
    return chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks


def composition(prompt: str) -> list[tuple[str, float]]:
    """The prompts that AND adds up, and their weights: "a cat AND a dog:0.5" is [("a cat ", 1), (" a dog", 0.5)].

    With guidance of scale s against a negative condition this is (Liu et al. 2022, eq. 11)

        out = negative + sum_k s weights[k] (positive[k] - negative)

    and so `guidance.composed(network, (negative, *positive), (1 - s sum(weights), *(s * weights)))`.
    """
    found = []
    for part in AND.split(prompt):
        match = WEIGHT.search(part)
        found.append((part[: match.start()], float(match[1])) if match else (part.rstrip(), 1.0))
    return found if len(found) > 1 else [(prompt, 1.0)]


def schedule(prompt: str, num_inference_steps: int) -> list[tuple[range, str]]:
    """What a prompt is at which steps, 0 being the first: ranges that follow each other, and texts.

    [from:to:when] is `from` for the first `when` steps and then `to`; [to:when] and [from::when] begin or end with
    nothing. `when` is a number of steps, or, with a decimal point, a share of all. [one|another|...] takes turns from
    step to step. They nest, and hold weights. Brackets that are none of these are text, and so is what is around
    them; a | outside of such brackets makes the whole prompt text, as it does in the web UI. Pipelines count the
    steps that a run does, of one network call or two. ValueError for a number of steps that is none.
    """
    check_steps(num_inference_steps)
    items = _parse(prompt)
    ends = {num_inference_steps}
    for change in _changes(items):
        ends.update([_last(change, num_inference_steps)] if change.when else range(1, num_inference_steps + 1))
    found: list[tuple[range, str]] = []
    start = 0
    for end in sorted(end for end in ends if end > 0):
        text = _at(items, end, num_inference_steps)
        if found and found[-1][1] == text:
            start = found.pop()[0].start
        found.append((range(start, end), text))
        start = end
    return found


def first_change(prompt: str) -> str | None:
    """The first part that changes from step to step, as it is written, or None."""
    return next((prompt[slice(*change.where)] for change in _changes(_parse(prompt))), None)


def _last(change: Change, steps: int) -> int:
    """How many steps the first option lasts."""
    number = float(change.when) * (steps if "." in change.when else 1)
    return int(max(0.0, min(float(steps), number)))


def _at(items: Items, step: int, steps: int) -> str:
    """The text at a step, 1 being the first."""
    texts, todo = [], list(reversed(items))
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Change):
            which = step > _last(item, steps) if item.when else (step - 1) % len(item.options)
            todo.extend(reversed(item.options[which]))
        else:
            todo.extend(reversed(item))
    return "".join(texts)


def _changes(items: Items) -> Iterator[Change]:
    """Every change, those within others too."""
    todo = list(reversed(items))
    while todo:
        item = todo.pop()
        if isinstance(item, Change):
            yield item
            todo.extend(reversed(item.options))
        elif not isinstance(item, str):
            todo.extend(reversed(item))


class _Open(NamedTuple):
    """A bracket that has not closed yet, and what is between its separators."""

    sign: str
    start: int
    parts: list[list[str | Change | Items]]
    separators: list[str]


def _parse(prompt: str) -> Items:
    """A prompt as texts and changes. A bracket that means nothing is text, and so are those that it lies in."""
    whole: list[str | Change | Items] = []
    opened: list[_Open] = []
    for token in TOKENS.finditer(prompt):
        text = token[0]
        if text in ("[", "("):
            opened.append(_Open(text, token.start(), [[]], []))
        elif text in (":", "|") and opened:
            opened[-1].parts.append([])
            opened[-1].separators.append(text)
        elif text == "|":
            return [prompt]
        elif text in ("]", ")"):
            closing = opened[-1] if opened and opened[-1].sign + text in ("[]", "()") else None
            item = closing and _closed(closing, token.end())
            if item is not None:
                opened.pop()
                (opened[-1].parts[-1] if opened else whole).append(item)
                continue
            if any("|" in one.separators for one in opened):
                return [prompt]
            whole += [*_texts(opened), text]
            opened = []
        else:
            (opened[-1].parts[-1] if opened else whole).append(text)
    if any("|" in one.separators for one in opened):
        return [prompt]
    return [*whole, *_texts(opened)]


def _closed(one: _Open, end: int) -> Change | Items | None:
    """What a pair of brackets means, None for nothing."""
    kinds = set(one.separators)
    if not kinds or (one.sign == "(" and one.separators == [":"]):
        return [*_texts([one]), ")" if one.sign == "(" else "]"]
    if one.sign == "(" or len(kinds) > 1:
        return None
    if kinds == {"|"}:
        return Change(tuple(one.parts), "", (one.start, end))
    number = NUMBER.fullmatch("".join(text if isinstance(text, str) else "[" for text in one.parts[-1]))
    if number is None or len(one.parts) > 3:
        return None
    return Change((one.parts[0] if len(one.parts) == 3 else [], one.parts[-2]), number[1], (one.start, end))


def _texts(opened: Sequence[_Open]) -> Items:
    """Brackets that stay open as the text that they are, and what is in them."""
    found: list[str | Change | Items] = []
    for one in opened:
        found.append(one.sign)
        for separator, part in zip(["", *one.separators], one.parts, strict=True):
            found += [separator, part]
    return found
