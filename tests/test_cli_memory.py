"""The estimate of memory, and the bar that knows what compiling is."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tqdm

import fdiff
from fdiff import bars, manifest, memory
from fdiff.cli import generate, main

NAMES = ("down_block_types", "up_block_types")


def unet(channels, heads=4):
    levels = len(channels)
    blocks = {NAMES[0]: ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
              NAMES[1]: ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1)}  # fmt: skip
    return fdiff.UNet2DConditionModel(
        block_out_channels=channels, layers_per_block=2, cross_attention_dim=32, attention_head_dim=heads,
        norm_num_groups=8, **blocks,
    )  # fmt: skip


def vae(channels):
    return fdiff.AutoencoderKL(
        block_out_channels=channels, latent_channels=4, norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels), up_block_types=("UpDecoderBlock2D",) * len(channels),
    )  # fmt: skip


def compiled(function, *args):
    """What XLA's program holds beside its arguments, in bytes."""
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_the_estimate_is_near_what_programs_hold():
    """Of a U-Net of 32 channels on 32 x 32 latents, and the decoder of 128 x 128 pixels."""
    network, decoder = unet((32, 64, 64)), vae((16, 32, 32))
    array = jax.ShapeDtypeStruct
    text = array((2, 77, 32), jnp.float32)
    told = [array((2, 32, 32, 4), jnp.float32), array((), jnp.float32), text]
    asked = compiled(lambda params, *args: network.apply({"params": params}, *args), network.shapes(), *told)
    decoded = compiled(
        lambda params, z: decoder.apply({"params": params}, z, method="decode"), decoder.shapes(),
        array((1, 32, 32, 4), jnp.float32),
    )  # fmt: skip
    assert asked < 1.1 * 7_314_216 and decoded < 1.1 * 10_010_664, "as long as nothing more is held at a time"
    parts = [manifest.Part("unet", "UNet2DConditionModel", network), manifest.Part("vae", "AutoencoderKL", decoder)]
    found = memory.estimate(parts, dtype="float32", size=(128, 128))
    assert found.parameters == sum(4 * leaf.size for part in parts for leaf in jax.tree.leaves(part.module.shapes()))
    assert 0.6 < found.activations / max(asked, decoded) < 1.7


def test_it_grows_with_what_is_asked():
    parts = [manifest.Part("unet", "", unet((32, 64))), manifest.Part("vae", "", vae((16, 32)))]

    def bytes_of(**options):
        return memory.estimate(parts, **{"dtype": "float32", "size": (512, 512), **options})

    plain = bytes_of()
    assert bytes_of(count=2).activations > 1.8 * plain.activations
    assert bytes_of(size=(1024, 512)).activations > 1.8 * plain.activations
    assert bytes_of(guided=False).total <= plain.total
    assert bytes_of(dtype="bfloat16").parameters == plain.parameters // 2


def test_what_is_free(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:     64 kB\n")
    assert memory._of_machine(tmp_path / "meminfo") == 65536
    for name, text in {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 5\nfile 300\n"}.items():
        (tmp_path / name).write_text(text)
    assert memory._of_group(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_group(tmp_path) is None and memory._of_group(tmp_path / "none") is None
    assert memory.available() > 0


@pytest.mark.parametrize("options", [[], ["--num-images", "4"]])
def test_what_cannot_fit_is_refused_before_it_is_loaded(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2_000_000)
    out = tmp_path / "a.png"
    asked = ["generate", *options, "--steps", "1", "--out", str(out)]
    assert main(asked) == 2
    line = capsys.readouterr().err.strip().split("\n")[-1]
    assert "needs about" in line and "and 2 MB are free" in line and "go on with --any-memory" in line
    assert "fewer --num-images" in line and not out.exists()
    assert main([*asked, "--any-memory"]) == 0 and out.exists()


def test_unknown_memory_is_no_reason_to_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    assert main(["generate", "--num-images", "1", "--steps", "1", "--out", str(tmp_path / "a.png")]) == 0


def test_the_time_that_is_left_is_told_without_compiling(monkeypatch):
    """Of eleven steps the first takes 100 s, and each other one 1 s."""
    now, out = [0.0], io.StringIO()
    made = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options, file=out, mininterval=0)
            self._time = lambda: now[0]
            self.start_t = self.last_print_t = now[0]
            made.append(self)

    monkeypatch.setattr(bars, "bar", Bar)
    with generate._bar(11) as done:
        assert "compiling" in out.getvalue()
        for i in range(11):
            now[0] += 100 if i == 0 else 1
            done(i)
            if i in (1, 5):
                assert np.isclose(made[0].format_dict["rate"], 1) and "denoising" in out.getvalue().split("\r")[-1]
                assert f"<00:{10 - i:02d}" in str(made[0])
    assert "decoding" in out.getvalue().split("\r")[-1]
