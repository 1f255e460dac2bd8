"""Programs that hold little beside what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import lean, sampling
from fdiff.lean import Program


def layers(params, x):
    """A matrix after another."""
    for matrix in params:
        x = jnp.tanh(x @ matrix)
    return x


def held(program, *args):
    """Bytes beside arguments and results."""
    return program.lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.skipif(jax.__version_info__ < lean.SINCE, reason="has no such option")
def test_weights_of_16_bits_are_widened_one_after_the_other():
    shape = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)
    args = [shape] * 8, jax.ShapeDtypeStruct((1, 256), jnp.bfloat16)
    wide = 4 * 256 * 256
    program = Program(layers)
    assert held(program.plain, *args) > 7 * wide, "or XLA does it by itself, and there is nothing left to do here"
    assert held(program.lean, *args) < 3 * wide


def test_what_samples_and_reads_is_lean():
    from fdiff.pipelines import flow, latent, pipeline, text

    programs = (sampling._advance, sampling._sample, latent.decoded, latent.encoded, text.encode_jit, flow.states_of)
    assert all(isinstance(one, Program) for one in (*programs, pipeline.applied))


def test_it_is_a_part_of_other_programs_and_is_transformed():
    program, x = Program(layers), jnp.linspace(-1, 1, 4, dtype=jnp.bfloat16)
    matrices = [jnp.eye(4, dtype=jnp.bfloat16) + 0.1, jnp.eye(4, dtype=jnp.bfloat16) - 0.1]
    wanted = layers(matrices, x)
    for made in (program, jax.jit(program), jax.checkpoint(program), jax.jit(lambda *args: program(*args))):
        assert_near(made(matrices, x), wanted)
    assert_near(jax.jit(lambda: program(matrices, x))(), wanted)
    both = jax.vmap(program, (None, 0))(matrices, jnp.stack([x, 2 * x]))
    assert_near(both[1], layers(matrices, 2 * x))
    slope = jax.grad(lambda x: program(matrices, x).sum())(x)
    assert_near(slope, jax.grad(lambda x: layers(matrices, x).sum())(x))


def assert_near(a, b):
    np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=0.02)


@pytest.mark.skipif(jax.__version_info__ < lean.SINCE, reason="has no such option")
def test_only_16_bits_are_asked_to_be_lean():
    program, x = Program(lambda *args: layers(*args)), jnp.ones(4)  # a function of its own, which has compiled nothing
    program([jnp.eye(4)], x)
    assert (program.plain._cache_size(), program.lean._cache_size()) == (1, 0)
    program([jnp.eye(4, dtype=jnp.bfloat16)], x)
    assert (program.plain._cache_size(), program.lean._cache_size()) == (1, 1)
