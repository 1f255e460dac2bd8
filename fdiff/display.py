"""What notebooks show of pipelines, plans and pictures: small HTML that needs nothing else, and that never fails."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

LONGEST = 200  # characters of a value
MOST_ROWS = 40  # of a table
MOST_POINTS = 200  # of a curve


def attempted(make: Callable[[Any], str], of: Any) -> str | None:
    """What a `_repr_html_` gives: the HTML, or None where making it fails, and the notebook shows the plain repr."""
    try:
        return make(of)
    except Exception:  # what is traced, deleted or half made is no reason to stop a notebook
        return None


def table(title: str, rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table of escaped text, its rows and their cells cut where they are long."""
    listed = [[_cut(cell) for cell in row] for row in rows]
    more = len(listed) - MOST_ROWS
    if more > 0:
        listed = [*listed[:MOST_ROWS], [f"and {more} more"]]
    body = "".join("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>"
                   for row in listed)  # fmt: skip
    return f'<table><caption style="text-align:left"><b>{_cut(title)}</b></caption>{body}</table>'


def _cut(value: Any) -> str:
    text = str(value)
    return html.escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def curves(title: str, panels: Sequence[tuple[str, Any, bool]]) -> str:
    """An SVG of small curves beside each other: (name, values (n,), logarithmic); what is not finite leaves a gap."""
    width, height, margin = 240, 130, 8
    parts = [f'<text x="{margin}" y="16" font-size="13" font-weight="bold">{_cut(title)}</text>']
    for column, (name, values, logarithmic) in enumerate(panels):
        left, top = column * width + margin, 40
        points = np.asarray(values, np.float64)
        points = points[np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int)]
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.log10(points) if logarithmic else points
        good = np.isfinite(drawn)
        ends = f"{points[0]:.3g} to {points[-1]:.3g}" if len(points) else "empty"
        parts.append(f'<text x="{left}" y="34" font-size="11">{_cut(name)}: {ends}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width - 2 * margin}" height="{height - top - margin}" '
                     'fill="none" stroke="currentColor" stroke-opacity="0.3"/>')  # fmt: skip
        if good.any():
            low, high = drawn[good].min(), drawn[good].max()
            x = left + (width - 2 * margin) * (np.arange(len(drawn)) + 0.5) / len(drawn)
            y = height - margin - 4 - (height - top - margin - 8) * (drawn - low) / ((high - low) or 1.0)
            dots = " ".join(f"{at:.1f},{up:.1f}" for at, up in zip(x[good], y[good], strict=True))
            shape = "polyline" if good.sum() > 1 else "polygon"
            parts.append(f'<{shape} points="{dots}" fill="none" stroke="#4c72b0" stroke-width="1.5" '
                         'stroke-linejoin="round" stroke-linecap="round"/>')  # fmt: skip
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(panels)}" height="{height}" '
            f'font-family="sans-serif" fill="currentColor">{"".join(parts)}</svg>')  # fmt: skip


def plan_html(plan: Any) -> str:
    """A plan: its rows, slots and kind, and the curves of what its network is told, of its noise and of its weights."""
    t = np.asarray(plan.t)
    if t.ndim != 1:
        return table(f"Plans, {' x '.join(str(side) for side in t.shape[:-1])} of {t.shape[-1]} rows", [])
    noise = np.asarray(plan.from_noise)
    calls, kind = int(np.count_nonzero(plan.c_in)), "stochastic" if noise.any() else "deterministic"
    title = f"Plan: {len(t)} rows, {calls} network calls, {plan.slots} slot{'s' * (plan.slots > 1)}, {kind}"
    ratio = np.asarray(plan.sigma, np.float64) / np.maximum(np.asarray(plan.alpha, np.float64), 1e-6)
    panels = [("timestep", t, False), ("sigma / alpha", ratio, True)]
    if noise.any():
        panels.append(("fresh noise", np.abs(noise[:, 0]), False))
    return curves(title, panels)
