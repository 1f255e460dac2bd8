"""A ControlNet (Zhang et al. 2023) for a text-to-image model: pictures that steer what is drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import ControlNetModel
from fdiff.pipelines.denoise import Condition, denoiser
from fdiff.pipelines.latent import factor_of
from fdiff.pipelines.pipeline import find_pipeline
from fdiff.pipelines.steering import Control, Steered, controlled
from fdiff.pipelines.task import option
from fdiff.sampling import Network
from fdiff.training import data
from fdiff.training.data import Source
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Params, TextSettings
from fdiff.training.tasks.material import ENCODED, Material, material

WIDTHS = (16, 32, 96, 256)  # of what looks at the picture, one more for each halving


def edges(image: np.ndarray) -> np.ndarray:
    """How steep the brightness of a picture (h, w, 3), bytes, is (Sobel's operator), the steepest being 255."""
    light = np.pad(image.astype(np.float32).mean(-1), 1, mode="edge")
    smooth = [light[:-2] + 2 * light[1:-1] + light[2:], light[:, :-2] + 2 * light[:, 1:-1] + light[:, 2:]]
    steep = np.hypot(smooth[0][:, 2:] - smooth[0][:, :-2], smooth[1][2:] - smooth[1][:-2])
    found = np.round(255 * steep / max(float(steep.max()), 1e-6)).astype(np.uint8)
    return np.repeat(found[..., None], 3, axis=-1)


def gray(image: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3), bytes, without its colours."""
    return np.repeat(np.round(image.mean(-1, keepdims=True)).astype(np.uint8), 3, axis=-1)


CONDITIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"edges": edges, "gray": gray}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlSettings(TextSettings):
    """Of a ControlNet."""

    withhold: float = option(0.1)
    condition: str = setting(
        "", f"what steers is made of each picture: {', '.join(CONDITIONS)}; the data's conditioning_image if not given",
        choices=("", *CONDITIONS),
    )  # fmt: skip


def recipe(settings: ControlSettings, source: Source, folder: Path) -> Recipe:
    """A ControlNet that begins as a copy of the U-Net's way down and adds nothing, its last convolutions being zero."""
    base = latents.load(settings.model)
    if not settings.condition and not data.steers(source):
        raise ValueError("the data has no conditioning pictures; name one for each picture as conditioning_image in "
                         "metadata.jsonl, or have them made with --condition")
    make = CONDITIONS.get(settings.condition)
    found = material(base, settings, source, folder / ENCODED, control=make or _absent)
    widths = WIDTHS[: 1 + round(math.log2(factor_of(base.pipe.vae)))]
    net, begun = ControlNetModel.from_unet(
        base.pipe.unet, base.params["unet"], jax.random.key(settings.seed), 3, widths
    )

    def steered(pipe: Any, params: Params, batch: Mapping[str, Any], condition: Condition) -> Network:
        whole = Control(jnp.ones(1), jnp.ones(1))
        network = controlled(denoiser(pipe.unet, params), {"controlnet": [params["controlnet"]]}, (net,), whole)
        return guidance.given(network, Steered(condition, (batch["control"].astype(jnp.float32) / 255,)))

    def loss(needs: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return latents.loss(base.pipe, settings, {**needs, "controlnet": params}, batch, key, steered)

    pipe = find_pipeline(base.pipe.siblings["ControlNetModel"], settings.model).from_pipe(base.pipe, controlnet=net)
    return Recipe(
        begun, Partial(loss, latents.frozen(settings, found.needs | {"unet": base.params["unet"]})), found.prepare,
        found.collate, lambda params: (pipe, {**base.params, "controlnet": params}), drawing(found), found.source,
        shapes=found.shapes,
    )  # fmt: skip


def _absent(_: Any) -> Any:
    raise ValueError("a picture has no conditioning_image")


def drawing(found: Material) -> Callable[[Any, Any, Any, int], list[Any]]:
    """Sheets of samples that the first pictures of the data steer."""
    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        random = np.random.default_rng(0)
        chosen = [i % min(len(found.source), len(found.prompts)) for i in range(count)]
        seen = [found.prepare(found.source[i], random)["control"] for i in chosen]
        texts = [found.prompts[i] for i in chosen]
        drawn: list[Any] = pipe(params, texts, image=np.stack(seen), key=key, progress=False).images
        return drawn

    return draw


controlnet = Task(ControlSettings, recipe, "A ControlNet: pictures, such as of edges, that steer what is drawn.")
