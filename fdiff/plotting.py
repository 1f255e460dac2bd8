"""Pictures of schedulers: where they go and with which coefficients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fdiff.schedulers import Scheduler

if TYPE_CHECKING:
    from PIL import Image


def draw_schedulers(schedulers: Mapping[str, Scheduler], num_inference_steps: int) -> Image.Image:
    """One picture of several schedulers: timesteps, noise to signal, and what x is made of at each call.

    The lower panels show, for x after each call, the weights of the x before (carry), of x0, of eps and of noise.

    Raises ValueError where matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('plots need matplotlib; install it with pip install "fdiff-jax[plot]"') from None
    from PIL import Image

    figure = Figure(figsize=(11, 8), layout="constrained", dpi=110)
    axes = figure.subplots(3, 2).ravel()
    titles = [
        "timestep",
        "sigma / alpha",
        "weight of x before",
        "weight of x0",
        "weight of eps",
        "deviation of fresh noise",
    ]
    styles = ["-", "--", ":", "-."]
    for number, (name, scheduler) in enumerate(schedulers.items()):
        plan = scheduler.plan(num_inference_steps)
        calls = np.arange(1, len(plan) + 1)
        rows = [
            plan.t, plan.sigma / np.maximum(plan.alpha, 1e-6),
            plan.carry[:, 0, 0], plan.from_x0[:, 0], plan.from_eps[:, 0], np.abs(plan.from_noise[:, 0]),
        ]
        label = f"{name} ({plan.slots} slot{'s' * (plan.slots > 1)})"
        for axis, values in zip(axes, rows, strict=True):
            axis.plot(calls, values, styles[number % 4], marker=".", label=label)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[1].set_yscale("log")
    axes[5].set_ylim(bottom=0)
    for axis in axes[4:]:
        axis.set_xlabel("network call")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
