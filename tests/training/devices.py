"""Trainings on several devices: what test_devices starts, in processes of their own.

    python -m tests.training.devices eight DATA FOLDER        prints a line of JSON about eight virtual devices
    python -m tests.training.devices one DATA FOLDER PLACE    is one of the processes of a training, until it is killed
"""

import json
import os
import re
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

if sys.argv[1:2] == ["eight"]:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fdiff import sharding, training
from fdiff.training import data, loop
from fdiff.training.tasks import TASKS

OPTIONS = {"batch_size": 8, "network": "dit", "channels": "8", "layers": 1, "sample_every": 0, "save_every": 2,
           "steps": 6, "warmup": 0}  # fmt: skip
KILLED_AFTER = 5  # the save after step 4 has waited for that after step 2


def losses(folder):
    return [json.loads(line)["loss"] for line in (Path(folder) / loop.METRICS).read_text().splitlines()]


def trained(place, folder, resume=False, report=None, stop=None, **options):
    task = TASKS["class-conditional"]
    settings = task.settings(**{**OPTIONS, **options})
    loop.train(task, settings, data.find(place), folder, resume=resume, report=report, stop=stop)
    return losses(folder)


def loss(params, batch, key):
    return jnp.mean((jnp.tanh(batch @ params["in"]) @ params["out"] - jax.random.normal(key, batch.shape)) ** 2)


def collectives(shard):
    """How often numbers are carried between devices in a step of a network of two matrices, by the operation."""
    mesh, optimizer = sharding.mesh(), optax.adamw(1e-3)
    params = {"in": np.zeros((16, 64), np.float32), "out": np.zeros((64, 16), np.float32)}
    begin = partial(training.init, optimizer=optimizer)
    laid = sharding.shardings(jax.eval_shape(begin, params), sharding.TABLES[shard], mesh)
    state = jax.jit(begin, out_shardings=laid)(sharding.place(params, laid.params))
    of = loss if shard == "data" else partial(loop._of_all, mesh, jax.tree_util.Partial(loss))
    step = jax.jit(partial(training.train_step, loss=of, optimizer=optimizer), out_shardings=(laid, None))
    batch = sharding.place_batch(np.zeros((8, 16), np.float32), mesh)
    text = step.lower(state, batch, jax.random.key(0)).compile().as_text()
    found = re.findall(r"\s(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
    local = {name: leaf.addressable_shards[0].data.shape for name, leaf in state.params.items()}
    return {"found": Counter(found), "local": local}


def eight(place, folder):
    sharding.SMALL = 2**6
    try:
        trained(place, Path(folder) / "odd", batch_size=12)
        refused = ""
    except ValueError as error:
        refused = str(error)
    runs = {"one": {"devices": 1}, "data": {"save_every": 6}, "full": {"shard": "full", "save_every": 6}}
    print(json.dumps({
        "refused": refused, "left": (Path(folder) / "odd").exists(),
        "losses": {name: trained(place, Path(folder) / name, **options) for name, options in runs.items()},
        "collectives": {name: collectives(name) for name in sharding.TABLES},
    }))  # fmt: skip


def one(place, folder, where):
    def report(after):
        if after.step == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    asked = iter([False, False, True])  # after the third step, and the second process alone
    try:
        trained(place, folder, stop=lambda: next(asked) and jax.process_index() == 1, distributed=where)
    except loop.Stopped as stopped:
        Path(f"{folder}-{jax.process_index()}").write_text(str(stopped.step))
    trained(place, folder, resume=True, report=report, distributed=where)


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    {"eight": eight, "one": one}[sys.argv[1]](*sys.argv[2:])
