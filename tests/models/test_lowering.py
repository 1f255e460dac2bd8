"""What attention becomes on GPUs and TPUs, which no machine needs to have: programs are lowered for them."""

import re
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fdiff
from fdiff.models.layers import fused_attention
from fdiff.models.layers.attention import attention
from fdiff.models.layers.fused_attention import fused
from tests.models.compare import assert_close

TOKENS = 4096
CUDA = ("jax-cuda12-plugin", "jax-cuda12-pjrt")
NVIDIA = ("nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12", "nvidia-cuda-nvrtc-cu12")


def shape(*sizes, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(sizes, dtype)


def gradients(q, k, v, *mask):
    return jax.grad(lambda *x: attention(*x, *mask).astype(jnp.float32).sum(), argnums=(0, 1, 2))(q, k, v)


def lowered(function, *inputs, platform):
    """The program's text, and whether an array of it is tokens x tokens."""
    program = jax.jit(function).trace(*inputs).lower(lowering_platforms=(platform,)).as_text()
    return program, f"{TOKENS}x{TOKENS}x" in program


def cases():
    """Functions that look at 4,096 tokens, with their inputs: attention alone, and networks of each kind."""
    qkv = [shape(2, TOKENS, 8, 40)] * 3
    yield "attention", attention, qkv
    yield "a mask of keys", attention, [*qkv, shape(2, 1, 1, TOKENS, dtype=bool)]
    yield "gradients", gradients, qkv
    yield "a batch of batches", jax.vmap(attention), [shape(3, *x.shape) for x in qkv]
    for name, model, inputs in networks():
        params = jax.tree.map(lambda x: shape(*x.shape), model.shapes())
        yield name, lambda params, *x, model=model: model.apply({"params": params}, *x), [params, *inputs]


def networks():
    time, tokens = shape(1, dtype=jnp.float32), shape(TOKENS, 3, dtype=jnp.float32)
    unet = fdiff.UNet2DConditionModel(
        block_out_channels=(320,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=768,
    )
    yield "U-Net", unet, [shape(1, 64, 64, 4), time, shape(1, 77, 768)]
    flux = fdiff.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=False)
    words = shape(512, 3, dtype=jnp.float32)
    yield "FLUX.1", flux, [shape(1, TOKENS, 64), shape(1, 512, 4096), shape(1, 768), time, tokens, words]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("function", "inputs"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
def test_no_program_holds_all_scores(function, inputs, platform):
    """For CUDA without cuDNN in blocks, for TPUs by JAX's kernel."""
    program, whole = lowered(function, *inputs, platform=platform)
    assert not whole
    if platform == "tpu":
        assert "tpu_custom_call" in program


def test_exported_programs_hold_no_scores_either():
    for platform in ("cuda", "tpu"):
        program = export.export(jax.jit(attention), platforms=[platform])(*[shape(1, TOKENS, 2, 64)] * 3).mlir_module()
        assert f"{TOKENS}x{TOKENS}x" not in program


def test_a_mesh_of_several_devices_is_given_no_kernel_that_jax_cannot_divide():
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    places = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    inputs = [jax.ShapeDtypeStruct((2, TOKENS, 2, 64), jnp.bfloat16, sharding=places)] * 3
    program, whole = lowered(attention, *inputs, platform="tpu")
    assert "tpu_custom_call" not in program
    assert not whole


def masks():
    random = np.random.default_rng(1)
    numbers = random.standard_normal((2, 3, 130, 150)).astype(np.float32)
    return [None, numbers[:, :1, :1] > -0.5, numbers[:1, :1] > -1, numbers, numbers[:1]]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: "none" if mask is None else str(mask.shape))
def test_derivatives_of_every_kind_and_vmap(mask, monkeypatch):
    """The primitive's are those of the softmax: forwards, backwards, one over the other, mapped."""
    monkeypatch.setattr(fused_attention, "ACCELERATOR", fused_attention.Limits(2**14, 16, whole=True))
    random = np.random.default_rng(0)
    q, k, v = (jnp.asarray(random.standard_normal((2, n, 3, 8)), jnp.float32) for n in (130, 150, 150))

    def plain(q, k, v):
        scores = 0.3 * jnp.einsum("bnhd,bmhd->bhnm", q, k)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
        return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)

    def kernel(q, k, v):
        return fused(q, k, v, None if mask is None else jnp.asarray(mask), 0.3)

    @partial(jax.jit, static_argnums=0)
    def found(function):
        def loss(*x):
            return jnp.sin(function(*x)).sum()

        slopes = tuple(jnp.cos(x) for x in (q, k, v))
        gradient = jax.grad(loss, argnums=(0, 1, 2))
        return (
            function(q, k, v),
            jax.jvp(function, (q, k, v), slopes),
            gradient(q, k, v),
            jax.jvp(gradient, (q, k, v), slopes),
            jax.grad(lambda *x: sum(jnp.square(y).sum() for y in gradient(*x)))(q, k, v),
            jax.vmap(function, (0, None, 1), 2)(jnp.stack([q, 2 * q]), k, jnp.stack([v, 3 * v], 1)),
            jax.vmap(gradient, (0, None, None))(jnp.stack([q, 2 * q]), k, v),
        )

    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), found(kernel), found(plain))


@pytest.mark.sweep
def test_cudnn_where_its_wheels_are_installed(tmp_path):
    """Installs them (1.5 GB) and lowers for CUDA, in a process of its own: every case asks for cuDNN's flash kernel."""
    names = [f"{name}=={version('jax')}" for name in CUDA] + list(NVIDIA)
    wheels = str(tmp_path / "wheels")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", wheels, *names], check=True)
    check = "from tests.models.test_lowering import asks_for_cudnn; asks_for_cudnn()"
    environment = {"PYTHONPATH": wheels, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", check], cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def asks_for_cudnn():
    """Fail where a case for CUDA is lowered without cuDNN's flash kernel, or holds all scores."""
    for name, function, inputs in cases():
        program, whole = lowered(function, *inputs, platform="cuda")
        assert re.search(r"__cudnn\$fmha", program), name
        assert not whole, name
