"""A latent consistency model (Luo et al. 2023): pictures in a few steps, distilled from a text-to-image model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff import keys
from fdiff.models import UNet2DConditionModel
from fdiff.pipelines import DiffusionPipeline, LatentConsistencyModelPipeline
from fdiff.pipelines.denoise import Denoiser, told_scale
from fdiff.pipelines.task import option
from fdiff.schedulers import LCMScheduler, Level
from fdiff.schedulers.level import broadcast
from fdiff.training.data import Source
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Base
from fdiff.training.tasks.lora import LoraSettings, changes, low_rank, scaled
from fdiff.training.tasks.material import ENCODED, Material, drawing, material

# What draws with a latent consistency model of a family, where it is not what draws with the teacher.
PIPELINES: Mapping[str, type[DiffusionPipeline]] = {"Stable Diffusion": LatentConsistencyModelPipeline}
SCALE_CHANNELS = 256  # of the embedding of a guidance scale, as the published models have


@dataclasses.dataclass(frozen=True, kw_only=True)
class LcmSettings(LoraSettings):
    """Of a latent consistency model."""

    learning_rate: float = option(1e-5)
    decay: float = option(0.95, "of the average of the parameters, with which the model learns to agree and is saved")
    solver_steps: int = setting(50, "steps of the teacher's DDIM run, of which neighbours come to one picture", least=1)
    lowest_scale: float = option(3.0, "the lowest guidance scale that the model is told")
    highest_scale: float = option(15.0, "the highest one")
    huber: float = setting(0.001, "the error from which on the loss grows no longer as its square", above=0)
    adapt: bool = option(
        False, "train small changes, see rank and layers, in place of the whole U-Net; they are told no guidance scale"
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        super().__post_init__()
        if self.lowest_scale > self.highest_scale:
            raise ValueError(f"lowest_scale {self.lowest_scale} is above highest_scale {self.highest_scale}")
        if self.text_layers:
            raise ValueError(f"text_layers is {self.text_layers}, and a latent consistency model changes its U-Net "
                             "alone; leave it out")


def recipe(settings: LcmSettings, source: Source, folder: Path) -> Recipe:
    """A U-Net that is told a guidance scale w and maps every point of the teacher's guided run to its end.

        f(x, t) = c_skip(t) x + c_out(t) x0(x, t),  x_s = a DDIM step of the teacher from x_t, guided by w
        loss = sqrt((f(x_t, t) - average's f(x_s, s))^2 + huber^2) - huber                (algorithm 1, eq. 9 and 17)

    With `adapt` an LCM-LoRA (Luo et al. 2023b): f is the teacher with low-rank changes, is told no w, and agrees with
    itself, f without a gradient standing for its average.

    Raises ValueError for more steps than the model has times.
    """
    base = latents.load(settings.model)
    scheduler = LCMScheduler.from_config(base.pipe.scheduler, original_inference_steps=settings.solver_steps)
    if settings.solver_steps > scheduler.num_train_timesteps:
        raise ValueError(f"solver_steps is {settings.solver_steps}; {settings.model} has "
                         f"{scheduler.num_train_timesteps} times")
    trees = changes(base, settings) if settings.adapt else None
    found = material(base, settings, source, folder / ENCODED)
    needs = latents.frozen(settings, found.needs | {"unet": base.params["unet"]})
    if trees is not None:
        return adapted(base._replace(pipe=base.pipe.replace(scheduler=scheduler)), settings, found, trees, needs)
    student = base.pipe.unet.clone(time_cond_proj_dim=SCALE_CHANNELS)
    pipe = PIPELINES.get(base.pipe.family, type(base.pipe)).from_pipe(base.pipe, unet=student, scheduler=scheduler)

    def loss(needs: Any, params: Any, batch: Any, key: jax.Array, average: Any) -> jax.Array:
        student, target = {"params": params}, {"params": average}
        return consistency_loss(pipe, base.pipe.unet, settings, needs, student, target, batch, key)

    draw = drawing(found, num_inference_steps=4)
    return Recipe(
        told(student, base.params["unet"]), Partial(loss, needs), found.prepare, found.collate,
        lambda params: (pipe, {**base.params, "unet": params}), draw, found.source, averaged=True,
        shapes=found.shapes,
    )  # fmt: skip


def adapted(base: Base, settings: LcmSettings, found: Material, trees: dict[str, Any], needs: Any) -> Recipe:
    """The recipe of an LCM-LoRA."""
    def loss(needs: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        changed = {"params": needs["unet"], "lora": scaled(params, settings.scale)["unet"]}
        return consistency_loss(base.pipe, base.pipe.unet, settings, needs, changed, changed, batch, key)

    draw = drawing(found, num_inference_steps=4, guidance_scale=1.0)
    return low_rank(base, settings, found, trees)._replace(loss=Partial(loss, needs), draw=draw)


def told(student: UNet2DConditionModel, params: Any) -> Any:
    """The teacher's parameters, with zeros where the student reads its scale, so that it begins as the teacher."""
    def filled(shapes: Any, known: Any) -> Any:
        return {
            name: filled(shape, known.get(name, {})) if isinstance(shape, dict)
            else known[name] if name in known else jnp.zeros(shape.shape, shape.dtype)
            for name, shape in shapes.items()
        }

    return filled(student.shapes(), params)


def consistency_loss(
    pipe: Any, teacher: UNet2DConditionModel, settings: LcmSettings, needs: Any, params: Any, average: Any, batch: Any,
    key: jax.Array,
) -> jax.Array:  # fmt: skip
    """The loss of `recipe`, for a batch of `Material`.

    needs: the teacher's parameters among them. params, average: variables of `pipe`'s U-Net, "params" and "lora".
    """
    key_latents, key_text, key_time, key_scale, key_noise = jax.random.split(key, 5)
    x0 = latents.latents(pipe, needs, batch, key_latents)
    encoded, nothing = latents.read_batch(pipe, needs, batch, key_text, settings.withhold)
    nothing = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf, like.shape), nothing, encoded)
    positive, negative = latents.told(pipe, encoded, batch), latents.told(pipe, nothing, batch)

    stride = pipe.scheduler.num_train_timesteps // settings.solver_steps
    t = stride * (1 + jax.random.randint(keys.typed(key_time), x0.shape[:1], 0, settings.solver_steps)) - 1
    here, there = pipe.scheduler.level(t), pipe.scheduler.level(jnp.maximum(t - stride, 0))
    low, high = settings.lowest_scale, settings.highest_scale
    scale = low + (high - low) * keys.uniform(key_scale, x0.shape[:1])
    x = here.noisy(x0, keys.normal(key_noise, x0.shape))

    doubled = jax.tree.map(lambda *sides: jnp.concatenate(sides), (x, here.told, negative), (x, here.told, positive))
    without, towards = jnp.split(Denoiser(teacher)({"params": needs["unet"]}, *doubled), 2)
    end, eps = read(here, x, without + broadcast(scale, x) * (towards - without))
    nearer = jax.lax.stop_gradient(there.noisy(end, eps))

    condition = positive if settings.adapt else positive._replace(scale=told_scale(pipe.unet, scale, len(x0)))

    def ended(tree: Any, level: Level, x: jax.Array) -> jax.Array:
        out = Denoiser(pipe.unet)(tree, x, level.told, condition)
        return bounded(level, pipe.scheduler.timestep_scaling, x, read(level, x, out)[0])

    error = ended(params, here, x) - jax.lax.stop_gradient(ended(average, there, nearer))
    return jnp.mean(jnp.sqrt(error**2 + settings.huber**2) - settings.huber)


def read(level: Level, x: jax.Array, out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x0, eps) of what a network says of x at a level."""
    out = out.astype(jnp.float32)
    x0, eps = (
        broadcast(of[..., 0], x) * x + broadcast(of[..., 1], x) * out for of in (level.x0_of, level.eps_of)
    )
    return x0, eps


def bounded(level: Level, scaling: float, x: jax.Array, x0: jax.Array) -> jax.Array:
    """c_skip x + c_out x0, which is x where the time is 0: c_skip = d^2 / (s^2 + d^2), c_out = s / sqrt(s^2 + d^2).

    With d = 0.5 and s = scaling t, as `LCMScheduler` reads the network.
    """
    s = broadcast(scaling * level.told, x)
    return 0.25 / (s**2 + 0.25) * x + s / jnp.sqrt(s**2 + 0.25) * x0


lcm = Task(LcmSettings, recipe, "A text-to-image model that draws in four steps, distilled from one that takes fifty.")
