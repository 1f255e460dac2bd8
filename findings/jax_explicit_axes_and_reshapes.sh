#!/usr/bin/env bash
# jax.make_mesh gives Explicit axes since jax 0.10, so shardings are part of an array's type. With a batch sharded over such
# an axis one would guess that operations which leave the batch alone go through as before. Two that image models use all the
# time do not: a reshape that splits or merges two pairs of other axes at once (patches, pixel shuffle, nearest upsampling)
# raises ShardingTypeError though one pair at a time passes, and jnp.pad(mode="edge") slices every axis, also those that are
# padded by (0, 0), and raises for the sharded one, where mode="constant" passes.
# jax 0.10.2, on eight virtual CPU devices. Seen: one pair passes, two pairs raise; constant passes, edge raises.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

mesh = jax.make_mesh((8,), ("data",))
jax.set_mesh(mesh)
x = jax.device_put(jnp.zeros((8, 16, 16, 3)), jax.P("data"))


def passes(function):
    """Whether the function takes the sharded batch."""
    try:
        jax.jit(function)(x)
    except Exception as error:
        print(f"  {type(error).__name__}: {str(error).splitlines()[0][:90]}")
        return False
    return True


found = {
    "split one pair": passes(lambda x: x.reshape(8, 8, 2, 16, 3)),
    "split two pairs": passes(lambda x: x.reshape(8, 8, 2, 8, 2, 3)),
    "pad constant": passes(lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))),
    "pad edge": passes(lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")),
}
print(found)
assert found == {"split one pair": True, "split two pairs": False, "pad constant": True, "pad edge": False}
PYTHON
