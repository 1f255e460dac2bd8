"""Pipelines whose weights stay quantised, and those of which one model is in memory at a time."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fdiff
from convert import weights
from convert.methods import Factors
from convert.quantized import Streamed, holds_quantized, is_quantized, widened
from fdiff.adapters import lora
from fdiff.cli.commands import main
from fdiff.conversion import convert
from fdiff.pipelines.in_turn import InTurn
from tests.convert.test_quantized import written
from tests.pipelines import transformers

QWEN = {**transformers.DEEP, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
FLUX2 = {**transformers.FLUX2, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32,
         "axes_dims_rope": (8, 8, 8, 8), "joint_attention_dim": 3 * 64}  # fmt: skip
OPTIONS = {"num_inference_steps": 1, "height": 64, "width": 64, "output_type": "array", "progress": False,
           "max_sequence_length": 32}  # fmt: skip
LAYER = "transformer_blocks.0.ff.linear_out"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("klein")
    pipe = transformers.our_klein(folder, {**transformers.FLUX2_VAE, **transformers.FOUR}, QWEN)
    pipe = pipe.replace(transformer=fdiff.Flux2Transformer2DModel(**FLUX2), is_distilled=True)
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"]) + 0.5
    pipe.save_pretrained(folder / "saved", params)
    return folder / "saved"


def drawn(folder, **options):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder, **options)
    return pipe(params, "a cat", key=jax.random.key(0), **OPTIONS).images


def test_a_quantized_pipeline_is_saved_and_draws_the_same_again(saved, tmp_path):
    """Its weights are smaller by the bits, and the picture is that of the widened weights but for rounding."""
    convert(saved, tmp_path / "int8", quantize="int8")
    found = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "int8")
    wide = {name: jax.tree.map(widened, tree, is_leaf=is_quantized) for name, tree in found[1].items()}
    assert holds_quantized(found[1]["transformer"]) and holds_quantized(found[1]["text_encoder"])
    assert not holds_quantized(found[1]["vae"])
    pictures = [found[0](params, "a cat", key=jax.random.key(0), **OPTIONS).images for params in (found[1], wide)]
    np.testing.assert_allclose(pictures[0], pictures[1], atol=2e-4)
    np.testing.assert_array_equal(pictures[0], drawn(saved, quantize="int8"))
    found[0].save_pretrained(tmp_path / "again", found[1])
    np.testing.assert_array_equal(pictures[0], drawn(tmp_path / "again"))


def test_one_model_at_a_time(saved):
    """The picture is the same, and what was used is dropped when the next one is asked for."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(saved, in_turn=True)
    first = jax.tree.leaves(params["text_encoder"])
    assert jax.tree.leaves(params["text_encoder"])[0] is first[0]
    assert "transformer" in params and "lora" not in params and set(params) == {"vae", "text_encoder", "transformer"}
    params["vae"]
    assert jax.tree.leaves(params["text_encoder"])[0] is not first[0]
    images = pipe(params, "a cat", key=jax.random.key(0), **OPTIONS).images
    np.testing.assert_array_equal(images, drawn(saved))


def test_a_model_is_dropped_when_what_reads_it_is_done():
    """A program holds what it reads until it ends, and Python goes on before: two models would be in memory."""

    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 100, lambda i, x: x @ x / 400, x)

    made = []
    params = InTurn({"text_encoder": lambda: jnp.ones((400, 400)), "vae": lambda: made[0].is_ready()})
    slow(jnp.ones((400, 400))).block_until_ready()
    made.append(slow(params["text_encoder"]))
    assert params["vae"]


@pytest.mark.parametrize("kind", [None, "int8"])
def test_layers_that_are_read_when_they_are_computed(saved, kind):
    """The picture is the same but for rounding, and what is in memory is little; a LoRA runs beside."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(saved, quantize=kind, streamed=True)
    whole = fdiff.DiffusionPipeline.from_pretrained(saved, quantize=kind)[1]
    for name in ("transformer", "text_encoder"):
        held, all_of_it = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree[name])) for tree in (params, whole))
        assert held < all_of_it
    assert isinstance(lora.layers(params["transformer"])[LAYER][1], Streamed)
    given = {"key": jax.random.key(0), **OPTIONS}
    np.testing.assert_allclose(pipe(params, "a cat", **given).images, pipe(whole, "a cat", **given).images, atol=1e-5)
    style = adapter(whole)
    beside = [pipe({**tree, "lora": lora.collection(tree, style)}, "a cat", **given).images for tree in (params, whole)]
    np.testing.assert_allclose(*beside, atol=1e-5)


def adapter(params):
    """A LoRA of one layer that shows."""
    shape = lora.layers(params["transformer"])[LAYER][1].shape
    rng = np.random.default_rng(0)
    down, up = (rng.standard_normal(size, np.float32) for size in ((2, shape[0]), (shape[1], 2)))
    return {"transformer": {LAYER: Factors(down, up, 20.0)}}


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_loras_run_beside_quantized_weights_and_fold_into_them(saved, kind):
    """Beside them to rounding, as into the widened weights; folded in, a layer that changes becomes int8."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(saved, quantize=kind)
    style = adapter(params)
    wide = {name: jax.tree.map(widened, tree, is_leaf=is_quantized) for name, tree in params.items()}
    merged, originals = lora.merge(params, style)
    assert lora.layers(merged["transformer"])[LAYER][1].kind == "int8"
    trees = params, {**params, "lora": lora.collection(params, style)}, merged, lora.merge(wide, style)[0]
    options = {**OPTIONS, "output_type": "latent"}
    plain, beside, folded, exact = (pipe(tree, "a cat", key=jax.random.key(0), **options).images for tree in trees)
    off, most = np.abs(plain - exact).max(), np.abs(exact).max()
    assert off > 1e-2 * most
    np.testing.assert_allclose(beside, exact, atol=2e-4 * most)
    np.testing.assert_allclose(folded, exact, atol=0.1 * off)
    jax.tree.map(np.testing.assert_array_equal, lora.unmerge(merged, originals), params)
    with pytest.raises(ValueError, match="is not what this merge made of it"):
        lora.unmerge(params, originals)


def test_the_command_line(saved, tmp_path):
    """A folder that it converts draws, one model at a time and with a LoRA beside the quantised weights."""
    lora.save(tmp_path, adapter(fdiff.DiffusionPipeline.from_pretrained(saved)[1]))
    assert main(["convert", str(saved), str(tmp_path / "int4"), "--quantize", "int4", "--dtype", "bfloat16"]) == 0
    asked = [str(tmp_path / "int4"), "a cat", "--steps", "1", "--height", "64", "--width", "64"]
    style = ["--lora", str(tmp_path / lora.NAMES[0]), "--low-memory", "--streamed"]
    for i, options in enumerate(([], ["--low-memory"], style)):
        assert main(["generate", *asked, *options, "--out", str(tmp_path / f"{i}.png")]) == 0
    pictures = [np.asarray(Image.open(tmp_path / f"{i}.png")) for i in range(3)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_the_command_drops_the_network_before_it_decodes(saved, tmp_path, monkeypatch):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(saved)
    size = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    kind, held, decode = type(pipe), [], type(pipe).decode

    def counted(*args, **options):
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return decode(*args, **options)

    monkeypatch.setattr(kind, "decode", counted)
    for options in ([], ["--low-memory"]):
        asked = [str(saved), "a cat", "--steps", "1", "--height", "64", "--width", "64", *options]
        assert main(["generate", *asked, "--out", str(tmp_path / "a.png")]) == 0
    assert held[0] - held[1] > 0.99 * (size["text_encoder"] + size["transformer"])


def test_a_kind_that_there_is_not_is_told(saved, tmp_path):
    with pytest.raises(ValueError, match="quantize is 'int3'; it must be int8, int4, float8 or None"):
        drawn(saved, quantize="int3")
    with pytest.raises(ValueError, match="quantize is 'int3'"):
        convert(saved, tmp_path / "out", quantize="int3")
    assert not (tmp_path / "out").exists()


def test_a_folder_may_hold_gguf(saved, tmp_path):
    """The transformer as Q8_0 and F32, in the names of its class, draws as its widened weights do."""
    shutil.copytree(saved, tmp_path / "saved")
    file = tmp_path / "saved" / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for name, tensor in weights.tensors(file).items():
        array = tensor.read()
        if array.ndim == 2 and array.shape[1] % 32 == 0 and "blocks" in name:
            groups = array.reshape(len(array), -1, 32)
            scales = (np.abs(groups).max(-1, keepdims=True) / 127).astype(np.float16)
            codes = np.round(groups / scales.astype(np.float32)).astype(np.int8)
            data = np.concatenate([scales.view(np.uint8), codes.view(np.uint8)], axis=-1)
            tensors[name] = (8, array.shape, data.tobytes())
        else:
            tensors[name] = (0, array.shape, array.tobytes())
    file.unlink()
    written(file.parent, tensors).rename(file.with_suffix(".gguf"))
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert lora.layers(params["transformer"])[LAYER][1].kind == "q8_0"
    wide = {**params, "transformer": jax.tree.map(widened, params["transformer"], is_leaf=is_quantized)}
    given = {"key": jax.random.key(0), **OPTIONS}
    np.testing.assert_allclose(pipe(params, "a cat", **given).images, pipe(wide, "a cat", **given).images, atol=1e-5)
