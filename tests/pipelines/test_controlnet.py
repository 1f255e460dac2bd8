"""Stable Diffusion steered by ControlNets."""

import pytest

import fdiff
from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}


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
