"""What stacked blocks take to trace, lower and compile, and to run, beside the same blocks one by one.

    python tests/benchmarks/bench_blocks.py compile klein       klein, flux, qwen3 or sdxl: whole, without weights
    python tests/benchmarks/bench_blocks.py run                 two joint and four single blocks at klein's widths
"""

import itertools
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp

import fdiff


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def klein(**sizes):
    options = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
               "guidance_embeds": False, **sizes}  # fmt: skip
    inputs = [shape(1, 1024, 128), shape(1, 512, 7680), shape(1), shape(1024, 4), shape(512, 4)]
    return fdiff.Flux2Transformer2DModel(**options), inputs, {}


def flux():
    inputs = [shape(1, 1024, 64), shape(1, 512, 4096), shape(1, 768), shape(1), shape(1024, 3), shape(512, 3), shape(1)]
    return fdiff.FluxTransformer2DModel(guidance_embeds=True), inputs, {}


def qwen3():
    model = fdiff.Qwen3ForCausalLM(
        vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_key_value_heads=8,
        head_dim=128, rope_theta=1e6,
    )  # fmt: skip
    return model, [shape(1, 512, dtype=jnp.int32)], {"hidden_layers": (9, 18, 27)}


def sdxl():
    model = fdiff.UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    added = {"text_embeds": shape(2, 1280), "time_ids": shape(2, 6)}
    return model, [shape(2, 128, 128, 4), shape(2), shape(2, 77, 2048)], {"added_cond_kwargs": added}


def clock():
    """(seconds, seconds of processor)"""
    spent = os.times()
    return time.perf_counter(), spent.user + spent.system


def report_compile(name):
    model, inputs, named = {"klein": klein, "flux": flux, "qwen3": qwen3, "sdxl": sdxl}[name]()
    static = {key: value for key, value in named.items() if isinstance(value, tuple)}
    arrays = {key: value for key, value in named.items() if key not in static}
    run = jax.jit(lambda params, *inputs, **arrays: model.apply({"params": params}, *inputs, **arrays, **static))
    shapes = model.shapes()
    for kind, params in (("one by one", shapes), ("stacked", jax.eval_shape(fdiff.stack_blocks, shapes))):
        times = [clock()]
        traced = run.trace(params, *inputs, **arrays)
        times.append(clock())
        lowered = traced.lower()
        times.append(clock())
        lowered.compile()
        times.append(clock())
        pairs = itertools.pairwise(times)
        parts = ", ".join(f"{after[0] - before[0]:.1f} ({after[1] - before[1]:.1f})" for before, after in pairs)
        count = lowered.as_text().count(" = ")
        print(f"{name}, {kind}: {count} operations; trace, lower, compile: {parts} s (of processor)", flush=True)


def report_run():
    model, inputs, _ = klein(num_layers=2, num_single_layers=4)
    arrays = [0.1 * jnp.ones(one.shape) for one in inputs]
    params = model.init_params(jax.random.key(0))
    run = jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))
    ways = {"one by one": params, "stacked": fdiff.stack_blocks(params)}
    compiled = {name: run.lower(tree, *arrays).compile() for name, tree in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(7):
        for name, tree in ways.items():
            start = time.perf_counter()
            compiled[name](tree, *arrays).block_until_ready()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(some[1:]) for name, some in seconds.items()}
    print(medians, "stacked of one by one:", medians["stacked"] / medians["one by one"])
    for name in ways:
        print(name, compiled[name].memory_analysis().temp_size_in_bytes / 1e6, "MB beside weights")


if __name__ == "__main__":
    report_run() if sys.argv[1] == "run" else report_compile(sys.argv[2])
