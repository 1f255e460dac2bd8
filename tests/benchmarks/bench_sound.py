"""Time of the models of sound: fdiff and diffusers on torch, in turn in one process, float32 on the CPU.

    python tests/benchmarks/bench_sound.py [--case unet_1d oobleck griffin_lim] [--repeat 5]

`unet_1d` is the upper part of harmonai's networks, 8 of their 13 levels, on 16,384 samples; `oobleck` the decoder of
stabilityai/stable-audio-open-1.0, 24 latents to 49,152 samples; random weights, the same for both. `griffin_lim` is
that of librosa, 32 rounds on 10 seconds at 16 kHz, from the same phases. Prints the median of a call of each, the
ratio, what compiling takes, and how far the outputs are apart, over the largest value.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from clock import seconds

UNET = {
    "extra_in_channels": 16,
    "time_embedding_dim": 16,
    "sample_rate": 16000,
    "block_out_channels": (128, 128, 256, 256, 512, 512, 512, 512),
    "down_block_types": ("DownBlock1DNoSkip", *("DownBlock1D",) * 4, *("AttnDownBlock1D",) * 3),
    "up_block_types": (*("AttnUpBlock1D",) * 3, *("UpBlock1D",) * 4, "UpBlock1DNoSkip"),
}
SAMPLES, LATENTS = 16384, 24
CASES = ("unet_1d", "oobleck", "griffin_lim")
FFT, HOP, ROUNDS = 1024, 256, 32


def networks(name: str) -> tuple[Any, Any]:
    """The torch network and ours."""
    import diffusers
    import torch

    import fdiff

    torch.manual_seed(0)
    if name == "unet_1d":
        return diffusers.UNet1DModel(**UNET).eval(), fdiff.UNet1DModel.from_config(UNET)
    return diffusers.AutoencoderOobleck().eval(), fdiff.AutoencoderOobleck()


def parameters(network: Any, model: Any) -> Any:
    """Our parameters, of the torch network's."""
    import jax

    from convert import layout

    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def read(path: Any, _: Any) -> jax.Array:
        names = tuple(entry.key for entry in path)
        return jax.device_put(np.ascontiguousarray(layout.from_torch(names, state[layout.torch_name(names)])))

    return jax.tree_util.tree_map_with_path(read, model.shapes())


def prepare(name: str) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], float]:
    """Ours and theirs, and the seconds that compiling took; sequences are (b, n, c)."""
    import jax

    if name == "griffin_lim":
        return phases()
    import torch

    network, model = networks(name)
    params, random = parameters(network, model), np.random.default_rng(0)
    if name == "unet_1d":
        x = random.standard_normal((1, SAMPLES, 2)).astype(np.float32)
        run = jax.jit(lambda params, x: model.apply({"params": params}, x, 0.5))
        call: Callable[[Any], Any] = lambda x: network(x, torch.tensor([0.5])).sample  # noqa: E731
    else:
        x = random.standard_normal((1, LATENTS, 64)).astype(np.float32)
        run = jax.jit(lambda params, x: model.apply({"params": params}, x, method="decode"))
        call = lambda x: network.decode(x).sample  # noqa: E731
    start = time.perf_counter()
    compiled = run.lower(params, x).compile()
    compiling = time.perf_counter() - start
    turned = torch.from_numpy(x).mT.contiguous()

    def theirs() -> np.ndarray:
        with torch.no_grad():
            return call(turned).mT.numpy()

    return lambda: np.asarray(compiled(params, x)), theirs, compiling


def phases() -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], float]:
    """Griffin and Lim's algorithm, all phases being 0 at first."""
    import jax
    import librosa

    from fdiff import audio

    time_ = np.arange(160000) / 16000
    sound = np.sin(2 * np.pi * (200 + 300 * time_) * time_) + 0.1 * np.random.default_rng(0).standard_normal(160000)
    magnitude = np.abs(librosa.stft(sound.astype(np.float32), n_fft=FFT, hop_length=HOP))
    run = jax.jit(lambda magnitude: audio.griffin_lim(magnitude, n_iter=ROUNDS, hop=HOP))
    start = time.perf_counter()
    compiled = run.lower(magnitude).compile()
    compiling = time.perf_counter() - start
    return (
        lambda: np.asarray(compiled(magnitude)),
        lambda: librosa.griffinlim(magnitude, n_iter=ROUNDS, hop_length=HOP, n_fft=FFT, init=None),
        compiling,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    for name in options.case:
        ours, theirs, compiling = prepare(name)
        expected = theirs()
        apart = np.abs(ours() - expected).max() / np.abs(expected).max()
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.repeat)]
        mine, other = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        others = "librosa" if name == "griffin_lim" else "diffusers"
        print(
            f"{name}: fdiff {mine:.0f} ms, {others} {other:.0f} ms, ratio {mine / other:.2f}; "
            f"compiled in {compiling:.1f} s; {apart:.0e} apart",
            flush=True,
        )


if __name__ == "__main__":
    main()
