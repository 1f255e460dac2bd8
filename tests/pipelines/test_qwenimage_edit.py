"""Qwen-Image-Edit: alone, and beside diffusers."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.image_processors import Qwen2VLProcessor
from fdiff.pipelines.qwenimage_edit import dimensions
from tests.pipelines import parity, toy_qwenimage, transformers
from tests.tokenizers import tiny

SMALL = 64 * 64
QUICK = {"max_area": SMALL, "progress": False, "num_inference_steps": 2}
KEY = jax.random.key(0)


def photo(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.fixture(scope="module")
def drawn_pipe(tmp_path_factory):
    pipe = toy_qwenimage.our_edit(tmp_path_factory.mktemp("tokenizer"))
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    # Fresh weights are so small that what the network sees hardly moves what it says.
    return pipe, params | {"transformer": jax.tree.map(lambda leaf: 4 * leaf, params["transformer"])}


def test_pictures_come_out_and_a_saved_pipeline_draws_them(drawn_pipe, tmp_path):
    """Of the shape of the picture, which is kept to with prompt_embeds too; also by the command."""
    pipe, params = drawn_pipe
    drawn = pipe(params, "a cat", photo(40, 80), key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (1, 96, 32, 3)  # nearly 64 x 64, by multiples of 32
    pipe.save_pretrained(tmp_path / "model", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe
    tokens, _ = again.encode_prompt(loaded, "a cat", photo(40, 80), max_area=SMALL)
    given = {"prompt_embeds": tokens, "key": KEY, "output_type": "np", **QUICK}
    np.testing.assert_allclose(again(loaded, image=photo(40, 80), **given).images, drawn, atol=1e-5)
    said = [transformers.call(run.network, run.x, run.plan.t[0])
            for run in (again.steps(loaded, image=photo(40, 80, seed), **given) for seed in (0, 1))]  # fmt: skip
    assert np.abs(said[0] - said[1]).max() > 1e-5
    photo(40, 40).save(tmp_path / "photo.png")
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--max-area", str(SMALL)]
    asked += ["--height", "16", "--width", "24", "--image", str(tmp_path / "photo.png")]
    assert main([*asked, "--out", str(tmp_path / "cat.png")]) == 0
    assert np.divide(*Image.open(tmp_path / "cat.png").size) == 1.5  # the command shows small pictures larger


def test_several_pictures(drawn_pipe):
    """In their order, which the text says; each is seen and kept to."""
    pipe, params = drawn_pipe
    plus = fdiff.QwenImageEditPlusPipeline.from_pipe(pipe)
    first, second = photo(40, 80), photo(48, 48, 1)
    options = {"height": 16, "width": 24, "key": KEY, **QUICK}
    runs = [plus.steps(params, "a cat", shown, **options) for shown in ([first, second], [second, first], first)]
    said = [transformers.call(run.network, run.x, run.plan.t[0]) for run in runs]
    for other in said[1:]:
        assert np.abs(said[0] - other).max() > 1e-5


def test_a_part_is_painted_anew_and_the_picture_kept_to(drawn_pipe):
    """At the size that the picture is brought to; what is black stays as it is."""
    pipe, params = drawn_pipe
    part = fdiff.QwenImageEditInpaintPipeline.from_pipe(pipe)
    masks = [Image.new("L", (40, 80)) for _ in range(2)]
    masks[1].paste(255, (0, 0, 40, 40))
    options = {"key": KEY, "strength": 1.0, **QUICK}
    none, half = (part(params, "a cat", photo(40, 80), mask, output_type="latent", **options).images for mask in masks)
    assert none.shape == (1, 48, 16, 4)
    np.testing.assert_allclose(half[:, 24:], none[:, 24:], atol=1e-5)
    assert np.abs(half[:, :24] - none[:, :24]).max() > 0.1
    run = part.steps(params, "a cat", photo(40, 80), masks[1], **options)
    (kept,) = run.network.args[1].kept
    np.testing.assert_allclose(kept[:, :, :, 0], none[:, ::2, ::2, 0], atol=1e-5)


def test_what_does_not_fit_is_told(drawn_pipe):
    pipe, params = drawn_pipe

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "image": photo(40, 40), "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("image is missing", image=None)
    told("2 pictures are given as image; QwenImageEditPipeline keeps to one", image=[photo(40, 40)] * 2)
    told("each picture to keep to must be .height, width, 3.", image=np.zeros((8, 8, 1), np.float32))
    told("max_area", max_area=0)
    told("a prompt must hold none", prompt="a <|image_pad|>")
    told("has no processor; pass prompt_embeds", pipe.replace(processor=None))
    part = fdiff.QwenImageEditInpaintPipeline.from_pipe(pipe)
    told("mask_image is missing", part)
    told("strength", part, mask_image=photo(40, 40), strength=2.0)


def test_sizes_and_the_processor(shared_data, tmp_path):
    """The real one's options; a picture is brought to whole tokens."""
    assert dimensions(1024 * 1024, (1000, 500)) == (1440, 736)
    folder = shared_data / "hub_configs/Qwen/Qwen-Image-Edit/processor"
    toy_qwenimage.marked(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text((folder / "preprocessor_config.json").read_text())
    processor = Qwen2VLProcessor.from_pretrained(tmp_path)
    assert (processor.min_pixels, processor.max_pixels) == (3136, 12845056)
    assert processor.grid(processor(photo(1024, 1024))) == (37, 37)
    processor.save_pretrained(tmp_path / "again")
    assert Qwen2VLProcessor.from_pretrained(tmp_path / "again") == processor
    assert processor(photo(20, 10)).shape == (1, 56, 84, 3)
    with pytest.raises(ValueError, match="too long to be seen"):
        processor(Image.new("RGB", (900, 4)))


# -- beside diffusers --------------------------------------------------------------------------------------------------


def paired(folder, cls):
    """The parts are saved one by one, since diffusers' processor cannot be here."""
    theirs = parity.quiet(toy_qwenimage.their_edit(folder / "tokenizer", cls))
    saved = folder / "saved"
    for name in ("scheduler", "vae", "transformer"):
        getattr(theirs, name).save_pretrained(saved / name)
    theirs.text_encoder.save_pretrained(saved / "text_encoder")
    for name in ("tokenizer", "processor"):
        toy_qwenimage.marked(saved / name)
    Qwen2VLProcessor(fdiff.Qwen2Tokenizer.from_folder(saved / "processor")).save_pretrained(saved / "processor")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKLQwenImage"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"], "processor": ["transformers", "Qwen2VLProcessor"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    }  # fmt: skip
    (saved / "model_index.json").write_text(json.dumps({"_class_name": cls, **parts}))
    return theirs, *fdiff.DiffusionPipeline.from_pretrained(saved)


def smaller(count):
    """What of diffusers says how large pictures are to be, so many numbers, where they are to be SMALL."""

    def dimensions_of(area, ratio):
        return (*dimensions(SMALL if area == 1024 * 1024 else area, (ratio, 1.0)), None)[:count]

    return dimensions_of


@pytest.mark.parity
@pytest.mark.parametrize("cls", ["QwenImageEditPipeline", "QwenImageEditPlusPipeline"])
def test_parity(tmp_path, monkeypatch, cls):
    pytest.importorskip("diffusers")
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        monkeypatch.setattr(module, "calculate_dimensions", smaller(3 if module == pipeline_qwenimage_edit else 2))
    theirs, ours, params = paired(tmp_path, cls)
    shown = photo(40, 80)
    if cls == "QwenImageEditPlusPipeline":
        shown = [shown, photo(48, 48, 1)]
    given = {"num_inference_steps": 3, "height": 32, "width": 48, "negative_prompt": "dogs"}
    wanted = theirs(image=shown, prompt="a cat", true_cfg_scale=3.0, generator=parity.generator(5), output_type="np",
                    **given).images  # fmt: skip
    drawn = ours(params, "a cat", shown, guidance_scale=3.0, torch_seed=5, output_type="np", progress=False,
                 max_area=SMALL, **given).images  # fmt: skip
    parity.assert_close(drawn, wanted)
    assert len(tiny.pieces()) < ours.text_encoder.vocab_size


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_parity_of_a_part_painted_anew(tmp_path, monkeypatch, strength):
    pytest.importorskip("diffusers")
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint

    monkeypatch.setattr(pipeline_qwenimage_edit_inpaint, "calculate_dimensions", smaller(3))
    theirs, ours, params = paired(tmp_path, "QwenImageEditInpaintPipeline")
    image, white = photo(40, 80), transformers.mask(40, 80)
    given = {"num_inference_steps": 4, "negative_prompt": "dogs", "strength": strength, "num_images_per_prompt": 2}
    wanted = theirs(image=image, mask_image=white, prompt="a cat", true_cfg_scale=3.0, output_type="np",
                    generator=parity.generator(5), **given).images  # fmt: skip
    drawn = ours(params, "a cat", image, white, guidance_scale=3.0, torch_seed=5, output_type="np", progress=False,
                 max_area=SMALL, **given).images  # fmt: skip
    parity.assert_close(drawn, wanted)
