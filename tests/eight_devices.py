"""Runs on eight virtual devices, the batch sharded over them, against the same runs on one: what test_sharding starts.

Prints a line of JSON: what went wrong in each case, or null; of the cases that are named, or all.
"""

import json
import os
import re
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fdiff
from fdiff import guidance
from fdiff.models.layers import attention
from fdiff.models.layers.attention_blocks import Limits
from tests.pipelines.conftest import tiny_unet

BATCH = 8
RANDOM = np.random.default_rng(0)
MODELS = {
    "UNet2DModel": tiny_unet(),
    "UNet2DConditionModel": fdiff.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=8, attention_head_dim=2,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    ),
    "AutoencoderKL": fdiff.AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ),
    "CLIPTextModel": fdiff.CLIPTextModel(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, eos_token_id=2
    ),
}  # fmt: skip


def normal(*shape):
    return RANDOM.normal(size=(BATCH, *shape)).astype(np.float32)


PARAMS = {
    name: jax.tree.map(lambda leaf: 0.1 * RANDOM.normal(size=leaf.shape).astype(np.float32), model.shapes())
    for name, model in MODELS.items()
}
PARAMS["scale"] = np.float32(0.7)
sde_dpm = fdiff.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
PLAN = fdiff.DDPMScheduler().plan(1)
PICTURES, LATENTS, TOKENS, TIMES = normal(16, 16, 3), normal(8, 8, 4), normal(5, 8), np.arange(1, BATCH + 1)
IDS = RANDOM.integers(0, 32, (BATCH, 7))
KEYS = jax.random.split(jax.random.key(0), BATCH)


def apply(name, **options):
    return lambda params, *inputs: MODELS[name].apply({"params": params[name]}, *inputs, **options)


def network(params, x, t, condition):
    return params["scale"] * x + 0.1 * jnp.tanh(x) + condition.mean((1, 2))[:, None, None, None] * t / 1000


def guided(params, condition):
    return guided_from(params, condition, condition)


def guided_from(params, condition, other):
    return guidance.classifier_free(jax.tree_util.Partial(network, params), condition, -other, 3.0)


def sample(scheduler, **options):
    plan = scheduler.plan(3)
    return lambda params, x, condition, keys: fdiff.sample(guided(params, condition), plan, x, keys, **options)


def steps(params, x, condition, keys):
    run = fdiff.steps(guided(params, condition), fdiff.DDPMScheduler().plan(3), x, jax.random.key(5))
    return [(state.x, x0) for state, x0 in run]


def by_row(params, x, condition, keys):
    changing = fdiff.ByRow(jnp.stack([condition, -condition]), np.array([0, 1, 0]))
    return fdiff.sample(guided_from(params, changing, condition), fdiff.DDPMScheduler().plan(3), x, keys)


def gradient(params, x, condition, keys):
    def loss(x):
        return jnp.sum(fdiff.sample(guided(params, condition), fdiff.DDIMScheduler().plan(3), x) ** 2)

    return jax.grad(loss)(x)


def drawn(params, x, condition, keys):
    return fdiff.unconditional(MODELS["UNet2DModel"], {"unet": params["UNet2DModel"]}, PLAN, keys, len(x))


def halve(x, i):
    return x / 2


# name: (params, *arrays) -> arrays, and the arrays, whose first axis is the batch
CASES = {
    "UNet2DModel": (apply("UNet2DModel"), (PICTURES[..., :1], TIMES)),
    "UNet2DConditionModel": (apply("UNet2DConditionModel"), (LATENTS, TIMES, TOKENS)),
    "AutoencoderKL.encode": (apply("AutoencoderKL", method="encode"), (PICTURES,)),
    "AutoencoderKL.decode": (apply("AutoencoderKL", method="decode"), (LATENTS,)),
    "CLIPTextModel": (apply("CLIPTextModel"), (IDS,)),
    "unconditional": (drawn, (LATENTS, TOKENS, KEYS)),
    "sample": (sample(fdiff.DDPMScheduler()), (LATENTS, TOKENS, KEYS)),
    "steps": (steps, (LATENTS, TOKENS, KEYS)),
    "sample, by row": (by_row, (LATENTS, TOKENS, KEYS)),
    "gradient": (gradient, (LATENTS, TOKENS, KEYS)),
    "sample, multistep": (sample(sde_dpm), (LATENTS, TOKENS, KEYS)),
    "sample, thresholding": (sample(fdiff.DDPMScheduler(thresholding=True)), (LATENTS, TOKENS, KEYS)),
    "sample, edited": (sample(fdiff.DDIMScheduler(), after=halve), (LATENTS, TOKENS, KEYS)),
}
BOTH = ("UNet2DConditionModel", "CLIPTextModel", "sample", "steps")  # over Auto axes as well, where JAX decides
LOCAL = ("CLIPTextModel", "sample", "sample, by row", "sample, multistep",
         "sample, thresholding")  # also inside shard_map


def wrong(function, arrays, wanted, mesh):
    """What is wrong with the run on these devices, or None."""
    params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
    arrays = [jax.device_put(array, NamedSharding(mesh, PartitionSpec("data"))) for array in arrays]
    try:
        got = function(params, *arrays)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert a.sharding.shard_shape(a.shape)[0] == len(a) // 8, f"the result is not sharded: {a.sharding}"
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    except (TypeError, ValueError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def moves(function, arrays):
    """The operations that carry numbers from device to device, where each sample is drawn on one."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arrays = [jax.device_put(array, NamedSharding(mesh, PartitionSpec("data"))) for array in arrays]
    program = jax.jit(function).lower(PARAMS, *arrays).compile().as_text()
    found = re.findall("all-gather|all-reduce|all-to-all|collective-[a-z]+|reduce-scatter", program)
    return ", ".join(sorted(set(found))) or None


def main(*names):
    jax.config.update("jax_disable_most_optimizations", True)
    attention.CPU = Limits(2**12, 1)  # so that attention is cut into blocks
    found = {}
    for name in names or CASES:
        function, arrays = CASES[name]
        run = function if name == "steps" else jax.jit(function)
        wanted = run(PARAMS, *arrays)
        for axes in (AxisType.Explicit, AxisType.Auto)[: 1 + (name in BOTH)]:
            mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
            found[f"{name}: {axes}"] = wrong(run, arrays, wanted, mesh)
        if name in LOCAL:
            specs = (PartitionSpec(), *[PartitionSpec("data")] * len(arrays))
            local = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("data"))
            found[f"{name}: shard_map"] = wrong(jax.jit(local), arrays, wanted, mesh)
    found["sample: from device to device"] = moves(*CASES["sample"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
