"""Members of the families that other files do not test: each beside diffusers, after 20 steps from one torch seed."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from tests.pipelines import checkpoints, inputs, parity
from tests.some import some

QUIET = {"output_type": "latent", "progress": False}
STEPS = {"num_inference_steps": 20}


def photo(width=90, height=75, seed=3):
    """A PIL image of an odd size."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def spot(width=90, height=75):
    """A mask with a white box."""
    mask = np.zeros((height, width), np.uint8)
    mask[20:40, 30:60] = 255
    return Image.fromarray(mask)


def test_a_photo_of_an_odd_size_is_resized_and_an_array_is_not(sd):
    pipe = fdiff.StableDiffusionImg2ImgPipeline.from_pipe(sd[0])
    options = {"key": jax.random.key(0), "num_inference_steps": 2}
    assert pipe.steps(sd[1], "a", photo(), **options).x.shape == (1, 36, 44, 4)
    assert pipe.steps(sd[1], "a", photo(), height=16, width=24, **options).x.shape == (1, 8, 12, 4)
    array = np.asarray(photo())
    assert pipe.steps(sd[1], "a", array, height=16, width=24, **options).x.shape == (1, 8, 12, 4)
    with pytest.raises(ValueError, match="height is 75; it must be a multiple of 8"):
        pipe.steps(sd[1], "a", array, **options)
    with pytest.raises(ValueError, match="height is 20; it must be a multiple of 8"):
        pipe.steps(sd[1], "a", photo(), height=20, **options)


def test_freeu_compiles_nothing_and_ones_change_nothing(sd):
    pipe, params = sd
    options = {"latents": inputs.latents(1, 8), "num_inference_steps": 2, **QUIET}
    plain = pipe(params, "a", **options).images
    np.testing.assert_allclose(pipe(params, "a", freeu=(1, 1, 1, 1), **options).images, plain, atol=1e-4)
    with pytest.raises(ValueError, match=r"freeu is .*; it must be four numbers"):
        pipe.steps(params, "a", freeu=(1, 2), **options)


def test_a_picture_as_a_prompt_needs_its_adapter_and_its_encoder(sd):
    pipe, params = sd
    with pytest.raises(ValueError, match="ip_adapter and ip_adapter_image belong together"):
        pipe.steps(params, "a", ip_adapter_image=photo(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="needs an image_encoder"):
        pipe.steps(params, "a", ip_adapter=object(), ip_adapter_image=photo(), key=jax.random.key(0))


def test_without_a_text_encoder(sd):
    pipe, params = sd
    bare = pipe.replace(text_encoder=None, tokenizer=None)
    pair = pipe.encode_prompt(params, inputs.PROMPTS)
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), pair, strict=True))
    options = {"latents": inputs.latents(2, 8), "num_inference_steps": 2, **QUIET}
    wanted = pipe(params, inputs.PROMPTS, **options).images
    np.testing.assert_array_equal(bare(params, **given, **options).images, wanted)
    with pytest.raises(ValueError, match="has no text encoder; pass prompt_embeds"):
        bare.steps(params, "a", **options)


def test_both_encoders_read_as_many_chunks(xl):
    pipe, params = xl
    positive, negative = pipe.encode_prompt(params, "long " * 100, prompt_2="short", chunked=True)
    assert positive.embeddings.shape == negative.embeddings.shape == (1, 2 * 77, 32)


def test_a_box_that_reaches_out_of_the_picture():
    from fdiff.pipelines.crop import box_around

    mask = Image.new("L", (100, 80))
    mask.paste(255, (40, 30, 60, 50))
    assert box_around(mask, 1.0, 5) == (35, 25, 65, 55)
    assert box_around(mask, 2.0, 5) == (20, 25, 80, 55)
    assert box_around(mask, 1.0, 60) == (0, 0, 100, 80)
    with pytest.raises(ValueError, match="mask_image is black"):
        box_around(Image.new("L", (8, 8)), 1.0, 0)


def test_only_what_is_masked_changes(sd):
    pipe = fdiff.StableDiffusionInpaintPipeline.from_pipe(sd[0])
    options = {"padding_mask_crop": 4, "key": jax.random.key(0), "num_inference_steps": 2, "progress": False}
    image = pipe(sd[1], "a", photo(), spot(), **options).images[0]
    assert image.size == (90, 75)
    outside = np.asarray(spot()) == 0
    np.testing.assert_array_equal(np.asarray(image)[outside], np.asarray(photo())[outside])
    with pytest.raises(ValueError, match="padding_mask_crop works on PIL images"):
        pipe.steps(sd[1], "a", np.asarray(photo()), spot(), **options)


@pytest.mark.parity
def test_parity_of_ddpm_and_ddim_by_torch_seed(tmp_path):
    import diffusers

    net = checkpoints.seeded(
        lambda: diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ), 5,
    )  # fmt: skip
    for name, options in (("DDPM", {}), ("DDIM", {"eta": 0.5})):
        made = getattr(diffusers, f"{name}Pipeline")(net, diffusers.DDPMScheduler())
        theirs, ours, params = parity.pair(tmp_path / name, made)
        options |= {"batch_size": 2, "num_inference_steps": 20, "output_type": "np"}
        wanted = theirs(generator=parity.generator(4), **options).images
        parity.assert_close(ours(params, torch_seed=4, progress=False, **options).images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("name", some(["Inpaint", "Img2Img", "InstructPix2Pix"]))
def test_parity_of_odd_sizes(sd_pair, tmp_path, name):
    if name == "InstructPix2Pix":
        made = checkpoints.stable_diffusion(
            cls="StableDiffusionInstructPix2PixPipeline", more={"image_encoder": None}, in_channels=8
        )
        theirs, ours, params = parity.pair(tmp_path, made)
    else:
        theirs, ours, params = parity.other(sd_pair, f"StableDiffusion{name}Pipeline")
    given, size = ([photo(), spot()], {"height": 64, "width": 96}) if name == "Inpaint" else ([photo()], {})
    wanted = parity.latents_of(theirs, "a cat", *given, generator=parity.generator(3), **STEPS, **size)
    got = ours(params, "a cat", *given, torch_seed=3, **STEPS, **size, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("family", some(["", "XL"]))
def test_parity_of_the_part_around_a_mask(sd_pair, xl_pair, family):
    pair = xl_pair if family else sd_pair
    theirs, ours, params = parity.other(pair, f"StableDiffusion{family}InpaintPipeline")
    options = {"padding_mask_crop": 6, "height": 64, "width": 64, "strength": 0.8, "num_inference_steps": 6}
    given = {"image": photo(), "mask_image": spot()}
    wanted = theirs("a cat", **given, generator=parity.generator(3), **options).images[0]
    got = ours(params, "a cat", photo(), spot(), torch_seed=3, progress=False, **options).images[0]
    assert wanted.size == got.size == (90, 75)
    assert np.abs(np.asarray(wanted, np.int32) - np.asarray(got, np.int32)).max() <= 1


@pytest.mark.parity
def test_parity_of_xl_instruct_pix2pix(tmp_path):
    made = checkpoints.stable_diffusion_xl(cls="StableDiffusionXLInstructPix2PixPipeline", in_channels=8)
    theirs, ours, params = parity.pair(tmp_path, made)
    image = inputs.picture()
    options = {**STEPS, "image_guidance_scale": 1.7, "guidance_rescale": 0.4, "height": 128, "width": 128}
    wanted = parity.latents_of(theirs, "a cat", image=parity.nchw(image), generator=parity.generator(4), **options)
    parity.assert_close(ours(params, "a cat", image, torch_seed=4, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_xl_adapters(xl_pair, tmp_path):
    import diffusers

    nets = [
        checkpoints.seeded(lambda: diffusers.T2IAdapter(channels=(32, 64), num_res_blocks=1, downscale_factor=8), seed)
        for seed in (5, 6)
    ]
    for i, net in enumerate(nets):
        net.save_pretrained(tmp_path / str(i))
    us = [fdiff.T2IAdapter.from_pretrained(tmp_path / str(i)) for i in range(2)]
    images = [inputs.picture(seed=s) / 2 + 0.5 for s in (1, 2)]
    latents = inputs.latents()
    options = {**STEPS, "height": 128, "width": 128}
    for many in (False, True):
        them = diffusers.MultiAdapter(nets) if many else nets[0]
        module, tree = (tuple(m for m, _ in us), [p for _, p in us]) if many else us[0]
        theirs, ours, params = parity.other(
            xl_pair, "StableDiffusionXLAdapterPipeline", {"adapter": tree}, {"adapter": module}, {"adapter": them}
        )
        given = [parity.nchw(np.concatenate([image] * 2)) for image in images]
        more = {"adapter_conditioning_scale": [0.7, 0.4] if many else 0.7, "adapter_conditioning_factor": 0.5}
        wanted = parity.latents_of(
            theirs, inputs.PROMPTS, image=given if many else given[0], latents=parity.nchw(latents), **options, **more
        )
        got = ours(params, inputs.PROMPTS, images if many else images[0], latents=latents, **options, **more, **QUIET)
        parity.assert_close(got.images, wanted)


def vision(size):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=size["text"],
    )  # fmt: skip
    return checkpoints.seeded(lambda: CLIPVisionModelWithProjection(config), 8)


def processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@pytest.mark.parity
def test_parity_of_image_variation(tmp_path):
    import diffusers

    size = checkpoints.SIZES["medium"]
    made = diffusers.StableDiffusionImageVariationPipeline(
        vae=checkpoints.vae(size), image_encoder=vision(size), unet=checkpoints.unet(size), safety_checker=None,
        scheduler=diffusers.DDIMScheduler(**checkpoints.SCHEDULER), feature_extractor=processor(),
        requires_safety_checker=False,
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, made, feature_extractor=True)
    options = {**STEPS, "num_images_per_prompt": 2}
    wanted = parity.latents_of(theirs, [photo(), photo(seed=4)], generator=parity.generator(2), **options)
    got = ours(params, [photo(), photo(seed=4)], torch_seed=2, **options, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("task", some(["Img2Img", ""]))
def test_parity_of_latent_consistency(tmp_path, task):
    import diffusers

    scheduler = diffusers.LCMScheduler(**checkpoints.SCHEDULER)
    made = checkpoints.stable_diffusion(
        cls=f"LatentConsistencyModel{task}Pipeline", scheduler=scheduler, more={"image_encoder": None},
        time_cond_proj_dim=16,
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, made)
    given = [inputs.picture()] if task else []
    options = {"num_inference_steps": 4, "guidance_scale": 6.0, **({"strength": 0.6} if task else {})}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS[0], *[parity.nchw(one) for one in given], generator=parity.generator(2), **options
    )
    got = ours(params, inputs.PROMPTS[0], *given, torch_seed=2, **options, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("latents", some([False, True]))
def test_parity_of_latent_upscaling(tmp_path, latents):
    import diffusers

    size = checkpoints.SIZES["medium"]
    width = size["text"]
    net = checkpoints.seeded(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=16, in_channels=8, out_channels=5, block_out_channels=(32, 32, 64, 64), layers_per_block=2,
            down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3), mid_block_type=None,
            up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"), norm_num_groups=None, act_fn="gelu",
            resnet_time_scale_shift="scale_shift", time_embedding_type="fourier", timestep_post_act="gelu",
            time_cond_proj_dim=128 + width, conv_in_kernel=1, conv_out_kernel=1, cross_attention_dim=width,
            attention_head_dim=16,
        ), 9,
    )  # fmt: skip
    made = diffusers.StableDiffusionLatentUpscalePipeline(
        vae=checkpoints.vae(size), text_encoder=checkpoints.text_encoder(size), tokenizer=checkpoints.tokenizer(),
        unet=net, scheduler=diffusers.EulerDiscreteScheduler(prediction_type="sample", **{
            name: value for name, value in checkpoints.SCHEDULER.items() if name.startswith("beta")}),
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, made)
    given = inputs.latents(2, 8) if latents else np.concatenate([inputs.picture(64), inputs.picture(64, seed=2)])
    wanted = parity.latents_of(theirs, inputs.PROMPTS, parity.nchw(given), generator=parity.generator(2), **STEPS)
    got = ours(params, inputs.PROMPTS, given, torch_seed=2, **STEPS, **QUIET)
    parity.assert_close(got.images, wanted)


def vision_prompt(theirs, tmp_path):
    """An IP-Adapter for that U-Net of diffusers, loaded into its pipeline and by fdiff."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {
        "image_proj.proj.weight": random.normal(size=(128, 32)) / 8,
        "image_proj.proj.bias": random.normal(size=128) / 8,
        "image_proj.norm.weight": np.ones(32), "image_proj.norm.bias": np.zeros(32),
    }  # fmt: skip
    for number, layer in enumerate(
        name for name, module in theirs.unet.named_modules() if name.endswith("attn2") for _ in [module]
    ):
        width = theirs.unet.get_submodule(layer).to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = random.normal(size=(width, 32)) / 4
    save_file({name: array.astype(np.float32) for name, array in tensors.items()}, tmp_path / "adapter.safetensors")
    theirs.load_ip_adapter(str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder=None)


@pytest.mark.parity
def test_parity_of_a_picture_as_a_prompt(tmp_path):
    from fdiff.adapters import ip_adapter

    size = checkpoints.SIZES["medium"]
    encoder = vision(size)
    made = checkpoints.stable_diffusion(more={"image_encoder": encoder})
    made.register_modules(feature_extractor=processor())
    theirs, ours, params = parity.pair(tmp_path / "pipe", made, image_encoder=True, feature_extractor=True)
    vision_prompt(theirs, tmp_path)
    theirs.set_ip_adapter_scale(0.7)
    adapter = ip_adapter.load(tmp_path / "adapter.safetensors", params["unet"])
    latents = inputs.latents(1)
    wanted = parity.latents_of(theirs, "a cat", ip_adapter_image=photo(), latents=parity.nchw(latents), **STEPS)
    options = {"ip_adapter": adapter, "ip_adapter_image": photo(), "ip_adapter_scale": 0.7, "latents": latents}
    parity.assert_close(ours(params, "a cat", **options, **STEPS, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_freeu(sd_pair):
    theirs, ours, params = sd_pair
    latents = inputs.latents(1)
    theirs.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    try:
        wanted = parity.latents_of(theirs, "a cat", latents=parity.nchw(latents), **STEPS)
    finally:
        theirs.disable_freeu()
    got = ours(params, "a cat", latents=latents, freeu=(0.9, 0.2, 1.5, 1.6), **STEPS, **QUIET)
    parity.assert_close(got.images, wanted)


def union(unet, seed=11):
    import diffusers

    shared = {name: unet.config[name] for name in (
        "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "norm_num_groups",
        "down_block_types", "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
        "transformer_layers_per_block", "use_linear_projection",
    )}  # fmt: skip
    net = checkpoints.seeded(
        lambda: diffusers.ControlNetUnionModel(
            **shared, conditioning_embedding_out_channels=(4, 8, 8, 16), num_control_type=6, num_trans_channel=32,
            num_trans_head=4, num_trans_layer=1, num_proj_channel=32,
        ), seed,
    )  # fmt: skip
    return checkpoints.stirred(net)


@pytest.mark.parity
@pytest.mark.parametrize("task", some(["Inpaint", "", "Img2Img"]))
def test_parity_of_pictures_of_several_kinds(xl_pair, tmp_path, task):
    them = union(xl_pair[0].unet)
    them.save_pretrained(tmp_path)
    module, tree = fdiff.ControlNetUnionModel.from_pretrained(tmp_path)
    theirs, ours, params = parity.other(
        xl_pair, f"StableDiffusionXLControlNetUnion{task}Pipeline", {"controlnet": tree}, {"controlnet": module},
        {"controlnet": them},
    )  # fmt: skip
    controls = [inputs.picture(seed=s) / 2 + 0.5 for s in (2, 3)]
    options = {**STEPS, "control_mode": [1, 3], "control_guidance_end": [1.0, 0.6]}
    options |= {"controlnet_conditioning_scale": [0.8, 0.5], **({"strength": 0.7} if task else {})}
    given = {"image": inputs.picture()} if task else {}
    given |= {"mask_image": inputs.mask()[None, ..., None]} if task == "Inpaint" else {}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS[0], control_image=[parity.nchw(one) for one in controls],
        **{name: parity.nchw(one) for name, one in given.items()}, generator=parity.generator(3), **options,
    )  # fmt: skip
    given = {name: one[0, ..., 0] if name == "mask_image" else one for name, one in given.items()}
    got = ours(params, inputs.PROMPTS[0], control_image=controls, **given, torch_seed=3, **options, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("saved", some([True, False]))
def test_parity_of_an_adapter_that_sees_into_the_unet(tmp_path, saved):
    import diffusers

    made = checkpoints.stable_diffusion(layers_per_block=2, norm_num_groups=32)
    sd_pair, unet = parity.pair(tmp_path / "base", made), made.unet
    adapter = checkpoints.stirred(checkpoints.seeded(
        lambda: diffusers.ControlNetXSAdapter.from_unet(
            unet, size_ratio=1.0, conditioning_embedding_out_channels=(4, 8, 8, 16)
        ), 12,
    ))  # fmt: skip
    adapter.save_pretrained(tmp_path / "adapter")
    module, tree = fdiff.ControlNetXSAdapter.from_pretrained(tmp_path / "adapter")
    theirs, ours, params = parity.other(
        sd_pair, "StableDiffusionControlNetXSPipeline", {"controlnet": tree}, {"controlnet": module},
        {"controlnet": adapter},
    )  # fmt: skip
    if saved:
        theirs.save_pretrained(tmp_path / "pipe")
        ours, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "pipe")
    edges, latents = inputs.picture() / 2 + 0.5, inputs.latents(1)
    options = {**STEPS, "controlnet_conditioning_scale": 0.8, "control_guidance_end": 0.6}
    wanted = parity.latents_of(theirs, "a cat", parity.nchw(edges), latents=parity.nchw(latents), **options)
    parity.assert_close(ours(params, "a cat", edges, latents=latents, **options, **QUIET).images, wanted)
