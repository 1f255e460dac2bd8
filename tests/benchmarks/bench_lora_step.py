"""Time of a LoRA step of SD 1.5's U-Net: fdiff, and diffusers with peft on torch, in turn in one process, float32.

    python tests/benchmarks/bench_lora_step.py [--size 32] [--rank 4] [--repeat 3] [--small]

Full size (860 million parameters, random ones, the same for both; needs 12 GB of memory), latents of --size, batch 1,
AdamW, the layers of diffusers' script (to_q, to_k, to_v, to_out.0), text and latents at hand. fdiff's step is that of
`fdiff train lora`, its loss and its average; `--folded` is the same with W + up down computed in every step. Prints the
median of each, the ratio, and what compiling takes. `--small` is a network of two levels, to see that all of it runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import diffusers
import jax
import numpy as np
import peft
import torch
from clock import seconds

import fdiff
from convert import layout
from fdiff import hub
from fdiff.training import init, train_step, warmed
from fdiff.training.tasks import TASKS, latents
from fdiff.training.tasks.latents import Base
from fdiff.training.tasks.lora import changes, low_rank
from fdiff.training.tasks.material import Material

CONFIGS = Path(__file__).parents[3] / "shared" / "data" / "hub_configs" / "runwayml" / "stable-diffusion-v1-5"
SMALL = {
    "block_out_channels": (32, 64), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "layers_per_block": 1,
}  # fmt: skip
LAYERS = "to_q,to_k,to_v,to_out.0"


def build(small: bool) -> tuple[Any, Any, dict[str, Any]]:
    """(diffusers' U-Net, the same here, its parameters)."""
    config = {**hub.read_json(CONFIGS / "unet" / "config.json"), **(SMALL if small else {})}
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel.from_config(config)
    state, model = theirs.state_dict(), fdiff.UNet2DConditionModel.from_config(config)

    def read(path: Any, _: Any) -> jax.Array:
        names = tuple(entry.key for entry in path)
        return jax.device_put(layout.from_torch(names, state[layout.torch_name(names)].numpy()))

    return theirs, model, jax.tree_util.tree_map_with_path(read, model.shapes())


def prepare_fdiff(model: Any, params: Any, batch: Any, rank: int, folded: bool) -> tuple[Callable[[], Any], float]:
    """(a step, the seconds that compiling took)."""
    vae = fdiff.AutoencoderKL.from_config(hub.read_json(CONFIGS / "vae" / "config.json"))
    scheduler = fdiff.DDPMScheduler.from_config(hub.read_json(CONFIGS / "scheduler" / "scheduler_config.json"))
    pipe = fdiff.StableDiffusionPipeline(vae, None, None, model, scheduler)
    settings = TASKS["lora"].settings(model="base", rank=rank, layers=LAYERS)
    base, unused = Base(pipe, {"unet": params}), cast(Any, None)
    found = Material(unused, unused, unused, {"nothing": batch["text"]}, [], (0, 0))
    recipe = low_rank(base, settings, found, changes(base, settings))
    loss, optimizer = recipe.loss, settings.optimizer()
    if folded:
        def fold(needs: Any, trees: Any, batch: Any, key: jax.Array) -> jax.Array:
            changed = {"unet": merged(needs["unet"], trees["unet"])}
            return latents.loss(pipe, settings, {**needs, **changed}, batch, key)

        loss = jax.tree_util.Partial(fold, *recipe.loss.args)
    state, key = init(recipe.params, optimizer), jax.random.key(0)

    def step(state: Any, batch: Any, key: jax.Array, loss: Any) -> Any:
        return train_step(state, batch, key, loss=loss, optimizer=optimizer, decays=(warmed(settings.decay),), clip=1.0)

    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch, key, loss).compile()
    seconds = time.perf_counter() - start

    def run() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch, key, loss)
        return jax.block_until_ready(metrics)

    return run, seconds


def merged(tree: Any, changes: Any) -> Any:
    """The kernels of a tree with up down added to them."""
    if "down" in changes:
        return {**tree, "kernel": tree["kernel"] + changes["down"] @ changes["up"]}
    return {name: merged(tree[name], changes[name]) if name in changes else tree[name] for name in tree}


def prepare_torch(unet: Any, batch: Any, rank: int) -> Callable[[], Any]:
    """A step as diffusers' script makes it, on latents and text that are at hand."""
    unet.requires_grad_(False)
    unet.add_adapter(
        peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LAYERS.split(","))
    )
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    scheduler = diffusers.DDPMScheduler.from_config(hub.read_json(CONFIGS / "scheduler" / "scheduler_config.json"))
    x0 = torch.from_numpy(batch["mean"]).permute(0, 3, 1, 2).contiguous() * 0.18215
    text = torch.from_numpy(batch["text"].embeddings)

    def run() -> Any:
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        loss = torch.nn.functional.mse_loss(unet(scheduler.add_noise(x0, noise, t), t, text).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folded", action="store_true")
    options = parser.parse_args()
    theirs, model, params = build(options.small)
    random = np.random.default_rng(0)
    shape = (1, options.size, options.size, 4)
    text = fdiff.prompts.Encoded(random.standard_normal((1, 77, 768), np.float32), np.zeros((1, 768), np.float32))
    batch = {"mean": random.standard_normal(shape, np.float32), "logvar": np.full(shape, -10, np.float32), "text": text}
    ours, compiling = prepare_fdiff(model, params, batch, options.rank, options.folded)
    torch_run = prepare_torch(theirs, batch, options.rank)
    ours(), torch_run()
    pairs = [(seconds(ours), seconds(torch_run)) for _ in range(options.repeat)]
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"LoRA of rank {options.rank}, latents {options.size}x{options.size}: fdiff {first:.2f} s a step, diffusers "
          f"and peft {second:.2f} s, ratio {first / second:.2f}; compiled in {compiling:.0f} s")


if __name__ == "__main__":
    main()
