"""ControlNets of Stable Diffusion 3, FLUX.1 and Qwen-Image: alone, and beside diffusers."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.models.layers.patches import packed, unpacked
from tests.models.compare import from_torch
from tests.pipelines import joint, parity, toy_qwenimage, transformers
from tests.reference import make_qwenimage

KEY = jax.random.key(0)
T5_FOLDER = "hub_configs/stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"
QUICK = {"progress": False, "num_inference_steps": 4, "key": KEY}


@pytest.fixture(scope="module")
def steered_sd3():
    pipe, _ = joint.our_sd3()
    net = fdiff.SD3ControlNetModel(**joint.SD3_CONTROL)
    pipe = fdiff.StableDiffusion3ControlNetPipeline.from_pipe(pipe, controlnet=net)
    return transformers.drawn(pipe, "vae", "transformer", "controlnet")


@pytest.fixture(scope="module")
def steered_flux():
    transformer = fdiff.FluxTransformer2DModel(**transformers.FLUX, guidance_embeds=True)
    net = fdiff.FluxControlNetModel(**joint.FLUX_CONTROL)
    pipe = fdiff.FluxControlNetPipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        fdiff.AutoencoderKL(**transformers.SHIFTED_VAE), None, None, None, None, transformer, controlnet=net,
    )  # fmt: skip
    return transformers.drawn(pipe, "vae", "transformer", "controlnet")


def texts(width, pooled):
    random = np.random.default_rng(1)
    return [(random.standard_normal((1, 5, width)), random.standard_normal((1, pooled))) for _ in range(2)]


def test_the_picture_steers_sd3_in_a_part_of_the_run(steered_sd3):
    """The net is told zeros in place of the pooled text, and latents without the shift."""
    pipe, params = steered_sd3
    positive, negative = texts(36, 32)
    photo = transformers.photo()
    run = pipe.steps(
        params, prompt_embeds=positive, negative_prompt_embeds=negative, guidance_scale=4.0, control_image=photo,
        control_guidance_end=0.5, controlnet_conditioning_scale=0.7, **QUICK,
    )  # fmt: skip
    assert run.x.shape == (1, 8, 12, 16)
    seen = pipe.vae.apply({"params": params["vae"]}, np.asarray(photo, np.float32)[None] / 127.5 - 1, method="encode")
    x, t = run.x, run.plan.t

    def said(text, row, acts):
        samples = transformers.applied(
            pipe.controlnet, params["controlnet"], x, seen.mean * pipe.vae.scaling_factor, text[0],
            np.zeros_like(text[1]), np.full(1, t[row]), 0.7 * acts,
        )  # fmt: skip
        return transformers.applied(pipe.transformer, params["transformer"], x, *text, np.full(1, t[row]), samples)

    for row, acts in ((0, 1.0), (3, 0.0)):
        one, other = (said(text, row, acts) for text in (positive, negative))
        found = transformers.call(fdiff.at_row(run.network, row), x, t[row])
        np.testing.assert_allclose(found, other + 4 * (one - other), atol=2e-4)


def test_a_union_is_told_the_kind_of_its_picture(steered_flux, tmp_path):
    """And the positive prompt, on both sides of guidance."""
    pipe, params = steered_flux
    positive, negative = texts(6, 16)
    hint = np.random.default_rng(2).standard_normal((1, 8, 12, 4)).astype(np.float32)  # latents
    given = {
        "prompt_embeds": positive, "negative_prompt_embeds": negative, "true_cfg_scale": 2.0, "guidance_scale": 4.5,
        "control_image": hint, **QUICK,
    }  # fmt: skip
    run = pipe.steps(params, control_mode=2, **given)
    x, t = run.x, run.plan.t[0]
    ids = np.array([[0, row, column] for row in range(4) for column in range(6)], np.float32)
    about = np.full(1, t) / 1000, ids, np.zeros((5, 3)), np.full(1, 4.5)
    samples = transformers.applied(
        pipe.controlnet, params["controlnet"], packed(x, 2), packed(hint, 2), *positive, *about, np.array([2]), 1.0
    )
    one, other = (
        unpacked(transformers.applied(pipe.transformer, params["transformer"], packed(x, 2), *text, *about, *samples),
                 8, 12, 2)
        for text in (positive, negative)
    )  # fmt: skip
    np.testing.assert_allclose(transformers.call(run.network, x, t), other + 2 * (one - other), atol=1e-4)
    assert np.abs(transformers.call(pipe.steps(params, control_mode=1, **given).network, x, t) - one).max() > 1e-3
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe
    assert set(loaded) == set(params)
    for match, options in (
        ("control_mode is 3; this union of ControlNets needs one from 0 to 2", {"control_mode": 3}),
        ("control_mode is None; this union of ControlNets needs one", {}),
        ("control_image is missing", {"control_mode": 1, "control_image": None}),
        ("control_image has 2 channels", {"control_mode": 1, "control_image": np.zeros((16, 24, 2), np.float32)}),
        ("height is 14; it must be a multiple of 4", {"control_mode": 1, "height": 14}),
    ):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{**given, **options})


def test_several_nets_act_together_and_foreign_ones_are_told(steered_sd3, tmp_path):
    pipe, params = steered_sd3
    positive, _ = texts(36, 32)
    given = {"prompt_embeds": positive, "guidance_scale": 1.0, **QUICK}
    photos = [transformers.photo(), transformers.photo(seed=2)]
    both = pipe.replace(controlnet=(pipe.controlnet,) * 2)
    trees = params | {"controlnet": [params["controlnet"]] * 2}
    run = both.steps(trees, control_image=photos, controlnet_conditioning_scale=[1.0, 0.0], **given)
    alone = pipe.steps(params, control_image=photos[0], **given)
    x, t = run.x, run.plan.t[0]
    np.testing.assert_allclose(transformers.call(run.network, x, t), transformers.call(alone.network, x, t), atol=1e-5)
    both.save_pretrained(tmp_path, trees)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == both
    foreign = fdiff.SD3ControlNetModel(**{**joint.SD3_CONTROL, "num_attention_heads": 1, "caption_projection_dim": 10})
    with pytest.raises(ValueError, match="patches of width 10, and the transformer of 20"):
        pipe.replace(controlnet=foreign).steps(params, control_image=photos[0], **given)
    with pytest.raises(ValueError, match="control_image must be a list of 2 pictures or batches"):
        both.steps(trees, control_image=photos[0], **given)
    photos[1] = transformers.photo(32, 16)
    with pytest.raises(ValueError, match="control_image holds pictures of several sizes"):
        both.steps(trees, control_image=photos, **given)


QWEN = {**make_qwenimage.CONTROLNET, "in_channels": 16, "joint_attention_dim": 16, "extra_condition_channels": 0}


def test_the_picture_steers_qwen_image(tmp_path):
    """A net, told the prompt on both sides of guidance; one that sees a mask, too, is for another pipeline."""
    pipe = fdiff.QwenImageControlNetPipeline.from_pipe(
        toy_qwenimage.ours(tmp_path).replace(text_encoder=None, tokenizer=None),
        controlnet=fdiff.QwenImageControlNetModel(**QWEN),
    )
    pipe, params = transformers.drawn(pipe, "vae", "transformer", "controlnet")
    random = np.random.default_rng(1)
    positive, negative = random.standard_normal((2, 1, 5, 16)).astype(np.float32)
    hint = random.standard_normal((1, 8, 12, 4)).astype(np.float32)  # latents
    given = {"prompt_embeds": positive, "negative_prompt_embeds": negative, "control_image": hint, **QUICK}
    run = pipe.steps(params, guidance_scale=1.0, controlnet_conditioning_scale=0.7, control_guidance_end=0.5, **given)
    x, t, mask = run.x, run.plan.t, np.ones((1, 5), np.int32)

    def squares(x):
        return packed(x, 2).reshape(1, 4, 6, 16)

    for row, acts in ((0, 0.7), (3, 0.0)):
        now = np.full(1, t[row] / 1000)
        samples = transformers.applied(
            pipe.controlnet, params["controlnet"], squares(x), squares(hint), now, positive, mask, acts
        )
        wanted = transformers.applied(
            pipe.transformer, params["transformer"], squares(x), now, positive, mask, (), None, samples
        )
        found = transformers.call(fdiff.at_row(run.network, row), x, t[row])
        np.testing.assert_allclose(squares(found), wanted, atol=1e-4)
    seeing = pipe.replace(controlnet=fdiff.QwenImageControlNetModel(**{**QWEN, "extra_condition_channels": 4}))
    with pytest.raises(ValueError, match="sees 20 channels and is given 16; one that sees a mask too is for"):
        seeing.steps(params, **given)


# -- beside diffusers --------------------------------------------------------------------------------------------------

SIZE = {"height": 16, "width": 24, "num_inference_steps": 4, "max_sequence_length": 20, "num_images_per_prompt": 2}


def compared(theirs, ours, params, ours_options=(), **options):
    wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **options).images
    options |= dict(ours_options)
    drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_with_sd3(tmp_path, shared_data):
    """Two kinds of nets, alone and together. diffusers draws the latents of pictures without its generator."""
    pytest.importorskip("diffusers")
    base = joint.sd3(shared_data / T5_FOLDER)
    base.register_modules(vae=joint.certain(base.vae))
    pair = parity.pair(tmp_path, base)
    nets = [joint.control("SD3ControlNetModel", options) for options in (joint.SD3_CONTROL, joint.SD3_ALONE)]
    photo = transformers.photo()
    about = {"control_guidance_end": 0.8, "controlnet_conditioning_scale": 0.7}
    for their_net, net, tree in nets:
        steered = parity.other(
            pair, "StableDiffusion3ControlNetPipeline", {"controlnet": tree}, {"controlnet": net},
            {"controlnet": their_net},
        )  # fmt: skip
        compared(*steered, control_image=photo, negative_prompt="dogs", **about, **SIZE)
    steered = parity.other(
        pair, "StableDiffusion3ControlNetPipeline", {"controlnet": [nets[0][2]] * 2},
        {"controlnet": (nets[0][1],) * 2}, {"controlnet": [nets[0][0]] * 2},
    )  # fmt: skip
    about["controlnet_conditioning_scale"] = [0.7, 0.4]
    compared(*steered, control_image=[photo, transformers.photo(seed=2)], **about, **SIZE)
    nets[0][1].save_pretrained(tmp_path / "net", nets[0][2])
    photo.save(tmp_path / "photo.png")
    command = ["generate", str(tmp_path), "a cat", "--controlnet", str(tmp_path / "net"), "--control-image"]
    command += [str(tmp_path / "photo.png"), "--steps", "2", "--max-sequence-length", "20", "--out"]
    assert main([*command, str(tmp_path / "cat.png")]) == 0
    width, height = Image.open(tmp_path / "cat.png").size  # what is tiny is written larger
    assert width * photo.height == height * photo.width


@pytest.mark.parity
def test_parity_of_a_part_painted_with_sd3(tmp_path, shared_data):
    """The net sees the rest of the picture, and where that is."""
    pytest.importorskip("diffusers")
    base = joint.sd3(shared_data / T5_FOLDER)
    base.register_modules(vae=joint.certain(base.vae))
    their_net, net, tree = joint.control("SD3ControlNetModel", {**joint.SD3_CONTROL, "extra_conditioning_channels": 1})
    steered = parity.other(
        parity.pair(tmp_path, base), "StableDiffusion3ControlNetInpaintingPipeline", {"controlnet": tree},
        {"controlnet": net}, {"controlnet": their_net},
    )  # fmt: skip
    compared(*steered, control_image=transformers.photo(), control_mask=transformers.mask(), **SIZE)
    plain = fdiff.StableDiffusion3ControlNetPipeline.from_pipe(steered[1])
    with pytest.raises(ValueError, match="the ControlNet sees 17 channels and is given 16; one that sees a mask too"):
        plain.steps(steered[2], "a cat", transformers.photo(), key=KEY)


@pytest.mark.parity
def test_parity_with_flux(tmp_path, shared_data):
    """A plain net, a union, one that sees the picture itself, and several."""
    import diffusers

    base = transformers.flux(shared_data / T5_FOLDER)
    vae = diffusers.AutoencoderKL(**{**transformers.SHIFTED_VAE, **transformers.FOUR})
    base.register_modules(vae=vae)
    pair = parity.pair(tmp_path, base)
    size = {**SIZE, "height": 32, "width": 48}
    photo = transformers.photo(48, 32)
    options = {"plain": joint.FLUX_PLAIN, "union": joint.FLUX_CONTROL, "hint": joint.FLUX_HINT}
    nets = {name: joint.control("FluxControlNetModel", one) for name, one in options.items()}

    def steered(*names):
        theirs, ours, trees = zip(*(nets[name] for name in names), strict=True)
        one = len(names) == 1
        return parity.other(
            pair, "FluxControlNetPipeline", {"controlnet": trees[0] if one else list(trees)},
            {"controlnet": ours[0] if one else ours}, {"controlnet": theirs[0] if one else list(theirs)},
        )  # fmt: skip

    about = {"control_guidance_end": 0.8, "controlnet_conditioning_scale": 0.7, "control_image": photo, **size}
    more = {"negative_prompt": "dogs", "true_cfg_scale": 2.0}
    compared(*steered("plain"), **about, **more)
    compared(*steered("union"), control_mode=2, **about)
    compared(*steered("hint"), **about)
    about |= {"control_image": [photo, transformers.photo(48, 32, seed=2)], "controlnet_conditioning_scale": [0.7, 0.4]}
    compared(*steered("union", "union"), control_mode=[2, 0], **about)
    about |= {"control_image": photo, "controlnet_conditioning_scale": 0.7, "strength": 0.6}
    about |= {"image": transformers.photo(48, 32, seed=3)}
    for name, given in (("Img2Img", {}), ("Inpaint", {"mask_image": transformers.mask(48, 32)})):
        theirs, ours, trees = nets["plain"]
        other = parity.other(
            pair, f"FluxControlNet{name}Pipeline", {"controlnet": trees}, {"controlnet": ours}, {"controlnet": theirs}
        )
        compared(*other, **about, **given)


@pytest.mark.parity
def test_parity_with_qwen_image(tmp_path):
    """One net, and a union of two pictures, which here is one net twice.

    diffusers draws the latents of a picture that is painted in part without its generator.
    """
    diffusers = pytest.importorskip("diffusers")
    base = toy_qwenimage.theirs(tmp_path / "tokenizer")
    half = base.vae.quant_conv.weight.shape[0] // 2
    base.vae.quant_conv.weight.data[half:], base.vae.quant_conv.bias.data[half:] = 0, -100
    pair = parity.pair(tmp_path / "saved", base)
    photo, size = transformers.photo(), {key: SIZE[key] for key in SIZE if key != "max_sequence_length"}

    def steered(name, more, count=1):
        theirs = make_qwenimage.built(diffusers.QwenImageControlNetModel, {**QWEN, "extra_condition_channels": more})
        ours, tree = from_torch(fdiff.QwenImageControlNetModel, theirs)
        nets = {"controlnet": [tree] * count if count > 1 else tree}, {"controlnet": (ours,) * count}
        if count == 1:
            nets = nets[0], {"controlnet": ours}
        union = diffusers.QwenImageMultiControlNetModel([theirs]) if count > 1 else theirs
        return parity.other(pair, f"QwenImageControlNet{name}Pipeline", *nets, {"controlnet": union})

    about = {"control_guidance_end": 0.8, "controlnet_conditioning_scale": 0.7, **size}
    compared(*steered("", 0), control_image=photo, negative_prompt="dogs", **about)
    compared(*steered("Inpaint", 4), control_image=photo, control_mask=transformers.mask(), **about)
    about |= {"controlnet_conditioning_scale": [0.7, 0.4]}
    compared(*steered("", 0, 2), control_image=[photo, transformers.photo(seed=2)], **about)
