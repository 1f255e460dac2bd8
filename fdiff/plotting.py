"""Pictures of schedulers: where they go and with which coefficients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fdiff.schedulers import Scheduler

if TYPE_CHECKING:
    from PIL import Image


def draw_schedulers(schedulers: Mapping[str, Scheduler], num_inference_steps: int) -> Image.Image:
    """One picture of several schedulers: timesteps, noise to signal, and what x is made of at each call.

    The lower panels show, for x after each call, the weights of the x before (carry), of x0, of eps and of noise; what
    is 0 for all of them has no panel.

    Raises ValueError where matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('plots need matplotlib; install it with pip install "fdiff-jax[plot]"') from None
    from PIL import Image

    titles = [
        "timestep",
        "sigma / alpha",
        "weight of x before",
        "weight of x0",
        "weight of eps",
        "deviation of fresh noise",
    ]
    lines = []
    for name, scheduler in schedulers.items():
        plan = scheduler.plan(num_inference_steps)
        lines.append((f"{name} ({plan.slots} slot{'s' * (plan.slots > 1)})", [
            plan.t, plan.sigma / np.maximum(plan.alpha, 1e-6),
            plan.carry[:, 0, 0], plan.from_x0[:, 0], plan.from_eps[:, 0], np.abs(plan.from_noise[:, 0]),
        ]))  # fmt: skip
    panels = [i for i in range(len(titles)) if any(values[i].any() for _, values in lines)]  # the others are 0 for all
    rows = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    figure = Figure(figsize=(11, 0.6 + 2.7 * len(rows)), layout="constrained", dpi=110)
    mosaic: Any = [row * 2 if len(row) == 1 else row for row in rows]
    axes: Any = figure.subplot_mosaic(mosaic)
    styles = ["-", "--", ":", "-."]
    for i, axis in axes.items():
        for number, (label, values) in enumerate(lines):
            calls = np.arange(1, len(values[i]) + 1)
            axis.plot(calls, values[i], styles[number % 4], marker=".", label=label)
        axis.set_title(titles[i], fontsize=11)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if i == 1:
            axis.set_yscale("log")
        if i == 5:
            axis.set_ylim(bottom=0)
        if i in rows[-1]:
            axis.set_xlabel("network call")
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
