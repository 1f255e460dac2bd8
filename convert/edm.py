"""Checkpoints of E(3) equivariant diffusion, EDM (Hoogeboom et al. 2022), as that project's own code writes them.

generative_model.npy and generative_model_ema.npy are files of torch, whatever they are called: the network's tensors
below "dynamics.egnn.", and gamma, minus the logarithm of the signal to noise ratio, at each timestep. What they were
trained with stands in args.pickle beside them, a Python object, or in an args.json of the same words.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convert.tensors import Tensor

PREFIX = "dynamics.egnn."
GAMMA = "gamma.gamma"


class Facts(NamedTuple):
    """What a checkpoint is of: the network's config, the schedule's options, and how features are scaled."""

    network: dict[str, Any]
    schedule: dict[str, Any]
    scales: tuple[float, float, float]


def is_edm(tensors: Mapping[str, Any]) -> bool:
    """Whether these are the tensors of such a checkpoint."""
    return f"{PREFIX}embedding.weight" in tensors


def network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network alone, under the names of EGNNModel."""
    return {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}


def facts(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> Facts:
    """What the tensors and the arguments of the training say; the project's defaults where neither does.

    Raises ValueError, the end of a sentence that names the file, for what fdiff does not have: a schedule other than a
    polynomial, or distances as sinusoids.
    """
    width, told = tensors[f"{PREFIX}embedding.weight"].shape
    layers = _count(tensors, f"{PREFIX}e_block_{{}}.gcl_equiv.coord_mlp.4.weight")
    context = int(args.get("context_node_nf", 0))
    if tensors[f"{PREFIX}e_block_0.gcl_0.edge_mlp.0.weight"].shape[1] != 2 * width + 2:
        raise ValueError("embeds distances as sinusoids, which fdiff does not have")
    config = {
        "in_features": told - 1 - context, "context_features": context, "hidden_features": width, "num_layers": layers,
        "num_sublayers": _count(tensors, f"{PREFIX}e_block_0.gcl_{{}}.edge_mlp.0.weight"),
        "attention": f"{PREFIX}e_block_0.gcl_0.att_mlp.0.weight" in tensors,
        "tanh": bool(args.get("tanh", True)),
        "norm_constant": float(args.get("norm_constant", 1)),
        "normalization_factor": float(args.get("normalization_factor", 1)),
    }
    scales = tuple(float(one) for one in args.get("normalize_factors", (1, 4, 10)))
    if len(scales) != 3:
        raise ValueError(f"was trained with normalize_factors {scales}, which must be three")
    return Facts(config, _schedule(tensors), scales)


def _count(tensors: Mapping[str, Any], pattern: str) -> int:
    return next(i for i in range(len(tensors) + 1) if pattern.format(i) not in tensors)


def _schedule(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Steps, precision and power of the table of gamma.

    Of T steps alpha^2 = (1 - 2 s) (1 - (t / T)^p)^2 + s, so that s stands at t = 0, and p in the middle.
    """
    if GAMMA not in tensors:
        raise ValueError("has a noise schedule that was learned, which fdiff does not have")
    gamma = tensors[GAMMA].read().astype(np.float64)
    steps, alpha2 = len(gamma) - 1, 1 / (1 + np.exp(gamma))
    precision = float(f"{1 / (1 + math.exp(-gamma[0])):.3g}")
    middle = steps // 2
    root = 1 - math.sqrt((alpha2[middle] - precision) / (1 - 2 * precision))
    power = float(f"{math.log(root) / math.log(middle / steps):.3f}")
    wanted = (1 - 2 * precision) * (1 - (np.arange(steps) / steps) ** power) ** 2 + precision
    if np.abs(alpha2[:-1] - wanted).max() > 1e-3:
        raise ValueError("has a noise schedule that is no polynomial, which fdiff does not have")
    return {"num_train_timesteps": steps, "noise_precision": precision, "power": power}
