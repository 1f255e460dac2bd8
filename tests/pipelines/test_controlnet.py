"""Stable Diffusion steered by ControlNets."""

import jax
import numpy as np
import pytest

import fdiff
from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}
EDGES = inputs.picture(16) / 2 + 0.5


@pytest.fixture(scope="module")
def net(reference):
    return fdiff.ControlNetModel.from_pretrained(reference / "pipelines" / "controlnet", dtype="float32")


def steered(sd, net, name="StableDiffusionControlNetPipeline"):
    module, tree = net
    return getattr(fdiff, name).from_pipe(sd[0], controlnet=module), {**sd[1], "controlnet": tree}


def test_reference(sd, net, drawn):
    pipe, params = steered(sd, net)
    options = {"control_guidance_end": 0.6, "controlnet_conditioning_scale": 0.7, "negative_prompt": "blurry"}
    images = pipe(params, inputs.PROMPTS, EDGES, torch_seed=42, num_inference_steps=20, **options, **QUIET).images
    parity.assert_close(images, drawn["controlnet"], 1e-4)


def test_two_nets_load_as_a_list_and_from_their_folders(sd, net, tmp_path):
    single, one = steered(sd, net)
    single.save_pretrained(tmp_path / "one", one)
    pipe, params = fdiff.StableDiffusionControlNetPipeline.from_pretrained(tmp_path / "one", controlnet=[net, net])
    pipe.save_pretrained(tmp_path / "two", params)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "two")
    assert pipe.controlnet == (net[0], net[0]) and (tmp_path / "two" / "controlnet_1").is_dir()

    run = pipe.steps(params, inputs.PROMPTS, [EDGES, EDGES], latents=inputs.latents(2, 8))
    assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == (2, 8, 8, 4)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (None, {}, "image is missing"),
        (EDGES[..., :1], {}, "image has 1 channels; it must have 3"),
        (EDGES, {"controlnet_conditioning_scale": [1.0, 2.0]}, "a number, or one for each of 1 networks"),
        (EDGES, {"control_guidance_end": None}, "control_guidance_end is None; it must be a number"),
        (EDGES, {"control_guidance_start": np.nan}, "control_guidance_start is nan; it must be a number"),
        (EDGES, {"controlnet_conditioning_scale": "x"}, "controlnet_conditioning_scale is 'x'; it must be a number"),
        (EDGES - 1.5, {}, "image holds numbers from .*; floats must lie within 0 and 1"),
        (EDGES, {"control_guidance_start": 0.8, "control_guidance_end": 0.5}, "must rise, from 0 to 1"),
    ],
)
def test_bad_control_is_named(sd, net, image, options, message):
    pipe, params = steered(sd, net)
    with pytest.raises(ValueError, match=message):
        pipe.steps(params, "a", image, key=jax.random.key(0), **options)


def test_control_of_another_size_is_named(sd, net):
    pipe, params = steered(sd, net, "StableDiffusionControlNetImg2ImgPipeline")
    with pytest.raises(ValueError, match="control_image is 8 x 8; it must be 16 x 16"):
        pipe.steps(params, "a", inputs.picture(16), EDGES[:, :8, :8], key=jax.random.key(0))


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """Two ControlNets of diffusers that do something, and fdiff's of the same files."""
    theirs = [checkpoints.controlnet(seed=seed) for seed in (11, 12)]
    folders = [tmp_path_factory.mktemp("net") for _ in theirs]
    for net, folder in zip(theirs, folders, strict=True):
        net.save_pretrained(folder)
    return theirs, [fdiff.ControlNetModel.from_pretrained(folder) for folder in folders]


def with_nets(pair, name, nets, count):
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    theirs, ours = nets[0][:count], nets[1][:count]
    them = theirs[0] if count == 1 else MultiControlNetModel(theirs)
    us, params = ours[0] if count == 1 else (tuple(m for m, _ in ours), [p for _, p in ours])
    return parity.other(pair, name, {"controlnet": params}, {"controlnet": us}, {"controlnet": them})


@pytest.mark.parity
def test_parity_of_two_nets(sd_pair, nets):
    theirs, ours, params = with_nets(sd_pair, "StableDiffusionControlNetPipeline", nets, 2)
    images = [inputs.picture(seed=s) / 2 + 0.5 for s in (1, 2)]
    options = {
        "controlnet_conditioning_scale": [0.8, 1.3], "control_guidance_start": [0.0, 0.2],
        "control_guidance_end": [0.6, 1.0], "num_inference_steps": 20,
    }  # fmt: skip
    latents = inputs.latents()
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, [parity.nchw(x) for x in images], latents=parity.nchw(latents), **options
    )
    parity.assert_close(ours(params, inputs.PROMPTS, images, latents=latents, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_guess_mode(sd_pair, nets):
    theirs, ours, params = with_nets(sd_pair, "StableDiffusionControlNetPipeline", nets, 1)
    image, latents = inputs.picture() / 2 + 0.5, inputs.latents()
    options = {"guess_mode": True, "num_inference_steps": 20, "guidance_scale": 3.0}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), latents=parity.nchw(latents), **options
    )
    parity.assert_close(ours(params, inputs.PROMPTS, image, latents=latents, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_image_to_image(sd_pair, nets):
    theirs, ours, params = with_nets(sd_pair, "StableDiffusionControlNetImg2ImgPipeline", nets, 1)
    image, edges = inputs.picture(), inputs.picture(seed=2) / 2 + 0.5
    options = {"strength": 0.7, "num_inference_steps": 20}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), parity.nchw(edges), generator=parity.generator(3), **options
    )
    got = ours(params, inputs.PROMPTS, image, edges, torch_seed=3, **options, **QUIET).images
    parity.assert_close(got, wanted)


@pytest.mark.parity
def test_parity_of_inpainting(sd_pair, nets):
    theirs, ours, params = with_nets(sd_pair, "StableDiffusionControlNetInpaintPipeline", nets, 1)
    image, edges, mask = inputs.picture(), inputs.picture(seed=2) / 2 + 0.5, inputs.mask()
    options = {"strength": 0.7, "num_inference_steps": 20, "control_guidance_end": 0.8}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), parity.nchw(mask[None, ..., None]), parity.nchw(edges),
        generator=parity.generator(3), **options,
    )  # fmt: skip
    got = ours(params, inputs.PROMPTS, image, mask, edges, torch_seed=3, **options, **QUIET).images
    parity.assert_close(got, wanted)


def test_xl_is_steered_at_the_size_of_the_picture(xl):
    pipe, params = xl
    taken = ("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
             "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "norm_num_groups",
             "transformer_layers_per_block", "down_block_types", "use_linear_projection")
    shared = {name: getattr(pipe.unet, name) for name in taken}
    net = fdiff.ControlNetModel(conditioning_embedding_out_channels=(4, 8), **shared)
    params = {**params, "controlnet": inputs.zeros(net)}
    for name, given in (("Img2Img", [inputs.picture(16)]), ("Inpaint", [inputs.picture(16), inputs.mask(16)])):
        other = getattr(fdiff, f"StableDiffusionXLControlNet{name}Pipeline").from_pipe(pipe, controlnet=net)
        run = other.steps(params, inputs.PROMPTS, *given, EDGES, key=jax.random.key(0))
        assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == run.x.shape == (2, 8, 8, 4)
        with pytest.raises(ValueError, match="control_image is 8 x 8; it must be 16 x 16"):
            other.steps(params, "a", *given, EDGES[:, :8, :8], key=jax.random.key(0))
    pipe = fdiff.StableDiffusionXLControlNetPipeline.from_pipe(pipe, controlnet=net)
    run = pipe.steps(params, inputs.PROMPTS, EDGES, key=jax.random.key(0))
    assert run.network.args[1].condition.added["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2
    assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == run.x.shape == (2, 8, 8, 4)


@pytest.mark.parity
@pytest.mark.parametrize("count", [1, 2])
def test_parity_of_xl(xl_pair, tmp_path, count):
    them = [checkpoints.controlnet_of(xl_pair[0].unet, seed=seed) for seed in (11, 12)[:count]]
    for i, net in enumerate(them):
        net.save_pretrained(tmp_path / str(i))
    us = [fdiff.ControlNetModel.from_pretrained(tmp_path / str(i)) for i in range(count)]
    theirs, ours, params = with_nets(xl_pair, "StableDiffusionXLControlNetPipeline", (them, us), count)
    images, latents = [inputs.picture(seed=s) / 2 + 0.5 for s in range(1, count + 1)], inputs.latents()
    options = {"controlnet_conditioning_scale": 0.7 if count == 1 else [0.8, 1.3], "num_inference_steps": 20,
               "control_guidance_end": 0.6 if count == 1 else [0.6, 1.0]}  # fmt: skip
    given = [parity.nchw(image) for image in images]
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, image=given[0] if count == 1 else given, latents=parity.nchw(latents), **options
    )
    got = ours(params, inputs.PROMPTS, images[0] if count == 1 else images, latents=latents, **options, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("task", ["Img2Img", "Inpaint"])
def test_parity_of_xl_on_a_picture(xl_pair, tmp_path, task):
    them = checkpoints.controlnet_of(xl_pair[0].unet, seed=11)
    them.save_pretrained(tmp_path)
    us = fdiff.ControlNetModel.from_pretrained(tmp_path)
    theirs, ours, params = with_nets(xl_pair, f"StableDiffusionXLControlNet{task}Pipeline", ([them], [us]), 1)
    image, edges, mask = inputs.picture(), inputs.picture(seed=2) / 2 + 0.5, inputs.mask()
    options = {"strength": 0.7, "num_inference_steps": 20, "control_guidance_end": 0.8}
    given = {"image": image, "control_image": edges, **({"mask_image": mask} if task == "Inpaint" else {})}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, generator=parity.generator(3), **options,
        **{name: parity.nchw(array if array.ndim == 4 else array[None, ..., None]) for name, array in given.items()},
    )  # fmt: skip
    parity.assert_close(ours(params, inputs.PROMPTS, torch_seed=3, **given, **options, **QUIET).images, wanted)
