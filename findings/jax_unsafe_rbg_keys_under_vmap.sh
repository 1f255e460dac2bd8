#!/usr/bin/env bash
# jax.random.key(0, impl="unsafe_rbg") is the fast kind of key for TPUs. Its documentation warns that split and fold_in are
# weak; one would still guess that vmap computes what a loop computes, as it does for every other function of JAX. It does
# not: under vmap, split of a batch of unsafe_rbg keys gives other keys than one by one (fold_in is right, and rbg's split
# is), and random.normal under vmap draws the bits of the whole batch from the first key, for rbg too. Who gives each picture of
# a batch its own key, so that a picture does not depend on its neighbours, loses that with these kinds in silence.
# jax 0.10.2 on a CPU. Seen: split differs for unsafe_rbg alone, normal for rbg and unsafe_rbg, none for threefry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import jax
import numpy as np

functions = {
    "split": lambda key: jax.random.key_data(jax.random.split(key)),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 7)),
    "normal": lambda key: jax.random.normal(key, (4,)),
}
found = {}
for kind in ("threefry2x32", "rbg", "unsafe_rbg"):
    keys = jax.random.split(jax.random.key(0, impl=kind), 3)
    found[kind] = [
        name for name, function in functions.items()
        if not np.array_equal(jax.vmap(function)(keys), np.stack([function(key) for key in keys]))
    ]
print("differ under vmap:", found)
assert found == {"threefry2x32": [], "rbg": ["normal"], "unsafe_rbg": ["split", "normal"]}, found
PYTHON
