"""Time of SD 1.5's text encoder: fdiff and transformers on torch, in turn in one process, float32 on the CPU.

    python tests/benchmarks/bench_text_encoder.py [--batch 1 2 8] [--repeat 20]

Full size (123 million parameters), random weights, 77 tokens a prompt. Prints the median of each, the ratio, what
compiling takes, and how far the results are apart, over the largest value.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np
import torch
import transformers
from clock import seconds

from convert import layout
from fdiff.models import CLIPTextModel

CONFIG = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,
}


def build() -> tuple[CLIPTextModel, dict[str, Any], torch.nn.Module]:
    """The same weights twice."""
    torch.manual_seed(0)
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CONFIG)).eval()
    state = {f"text_model.{name}": tensor.numpy() for name, tensor in theirs.state_dict().items()}
    model = CLIPTextModel.from_config(CONFIG)

    def read(path: Any, _: Any) -> jax.Array:
        names = tuple(entry.key for entry in path)
        return jax.device_put(layout.from_torch(names, state[layout.torch_name(names)]))

    return model, jax.tree_util.tree_map_with_path(read, model.shapes()), theirs


def compare(model: CLIPTextModel, params: dict[str, Any], theirs: torch.nn.Module, batch: int, repeat: int) -> None:
    """Run both in turn and print a line."""
    ids = np.random.default_rng(0).integers(0, 49406, (batch, 77)).astype(np.int32)
    ids[:, 0], ids[:, 30:] = 49406, 49407
    tensors = torch.from_numpy(ids).long()
    lowered = jax.jit(lambda p, ids: model.apply({"params": p}, ids).last_hidden_state).lower(params, ids)
    start = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - start
    with torch.no_grad():
        expected = theirs(tensors).last_hidden_state.numpy()
        apart = np.abs(np.asarray(compiled(params, ids)) - expected).max() / np.abs(expected).max()
        pairs = [
            (seconds(lambda: compiled(params, ids).block_until_ready()), seconds(lambda: theirs(tensors)))
            for _ in range(repeat)
        ]
    ours, torchs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"batch {batch}: fdiff {1000 * ours:.1f} ms, torch {1000 * torchs:.1f} ms, ratio {ours / torchs:.2f}; "
        f"compiled in {compiling:.1f} s; {apart:.1e} apart"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 2, 8])
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    model, params, theirs = build()
    for batch in options.batch:
        compare(model, params, theirs, batch, options.repeat)


if __name__ == "__main__":
    main()
