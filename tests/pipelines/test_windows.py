"""What acts in a part of a run acts by row: also where rows share a t, as Heun's and PNDM's do, or lie between."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import sampling
from fdiff.pipelines import denoise, steering
from fdiff.pipelines.plans import count_rows
from fdiff.rows import at_row
from tests.pipelines import checkpoints, inputs, parity
from tests.some import some

QUIET = {"output_type": "latent", "progress": False}
SCHEDULERS = ("PNDMScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
each_scheduler = pytest.mark.parametrize("scheduler", SCHEDULERS)
one_scheduler = pytest.mark.parametrize("scheduler", some(SCHEDULERS))
EDGES = inputs.picture(16) / 2 + 0.5
STEPS = 6


def with_scheduler(pipe, name):
    made = getattr(fdiff, name).from_config(pipe.scheduler)
    return pipe.replace(scheduler=dataclasses.replace(made, skip_prk_steps=True) if name == "PNDMScheduler" else made)


def by_hand(run, network_of):
    """The last x of a run whose network is `network_of(i)` at row i."""
    state = sampling.init(run.plan, run.x)
    for i in range(len(run)):
        state, _ = sampling._advance(network_of(i), run.plan[i], state, None, None, None)
    return state.x


def within(start, stop, n):
    return [start <= i / n and (i + 1) / n <= stop for i in range(n)]


@each_scheduler
@pytest.mark.parametrize("interval", [(0.0, 0.5), (0.2, 0.8), (0.5, 0.5)])
def test_guidance(sd, scheduler, interval):
    pipe, params = with_scheduler(sd[0], scheduler), sd[1]
    options = {"latents": inputs.latents(2, 8), "num_inference_steps": STEPS}
    runs = [pipe.steps(params, inputs.PROMPTS, guidance_scale=scale, **options) for scale in (7.5, 1.0)]
    n = len(runs[0])
    begin, end = (int(share * n) for share in interval)
    assert n > STEPS
    wanted = by_hand(runs[0], lambda i: runs[0 if begin <= i < end else 1].network)
    got = pipe(params, inputs.PROMPTS, guidance_interval=interval, **options, **QUIET).images
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def net(reference):
    return fdiff.ControlNetModel.from_pretrained(reference / "pipelines" / "controlnet", dtype="float32")


@each_scheduler
def test_controlnets(sd, net, scheduler):
    pipe = fdiff.StableDiffusionControlNetPipeline.from_pipe(with_scheduler(sd[0], scheduler), controlnet=(net[0],) * 2)
    params = {**sd[1], "controlnet": [net[1]] * 2}
    options = {"latents": inputs.latents(2, 8), "num_inference_steps": STEPS, "guidance_scale": 1.0}

    def run(scale, **more):
        return pipe.steps(params, inputs.PROMPTS, [EDGES] * 2, controlnet_conditioning_scale=scale, **options, **more)

    starts, stops = [0.0, 0.3], [0.4, 1.0]
    part = run([0.8, 0.5], control_guidance_start=starts, control_guidance_end=stops)
    n = len(part)
    acts = list(zip(within(0.0, 0.4, n), within(0.3, 1.0, n), strict=True))
    networks = {on: run([0.8 * on[0], 0.5 * on[1]]).network for on in set(acts)}
    wanted = by_hand(part, lambda i: networks[acts[i]])
    *_, (last, _) = part
    np.testing.assert_allclose(last.x, wanted, atol=1e-4 * np.abs(wanted).max())


@each_scheduler
def test_control_counts_in_the_run_that_a_strength_leaves(sd, scheduler):
    plan = with_scheduler(sd[0], scheduler).scheduler.plan(STEPS, strength=0.5)
    on = steering.control(plan, 1, 1.0, 0.25, 0.75).on
    assert np.array_equal(np.asarray(on.values)[:, 0], within(0.25, 0.75, len(plan)))


@each_scheduler
def test_features_of_adapters(sd, scheduler):
    adapter = fdiff.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=2)
    tree = adapter.init_params(jax.random.key(0))
    plan = with_scheduler(sd[0], scheduler).scheduler.plan(STEPS)
    seen, x = [EDGES], jnp.asarray(inputs.latents(2, 8))
    n = len(plan)

    def told(x, t, condition, residuals):
        return jnp.stack([jnp.abs(level).sum() for level in residuals.features])

    def network(factor):
        texts = fdiff.pipelines.text.Texts(None, None, prompts=1)
        both = (denoise.Condition(jnp.zeros((2, 1, 1))), None)
        found = steering.adapted(adapter, {"adapter": tree}, x, texts, told, both, seen, "image", 1.0, plan, factor)
        return [at_row(found, i) for i in range(n)]

    whole, part = ([one.denoiser(x, 0.0, one.both[0]) for one in network(factor)] for factor in (1.0, 0.5))
    assert np.all(np.asarray(whole) > 0)
    np.testing.assert_array_equal(part, np.where(np.arange(n)[:, None] < n // 2, whole, 0))


def test_rows_that_padding_added_are_not_counted(sd):
    plan = sd[0].scheduler.plan(4)
    assert count_rows(plan) == count_rows(plan.pad(rows=10)) == 4
    assert denoise.rows_within(plan.pad(rows=10), (0.25, 0.75)).values.tolist() == [0, 1, 1, 0]
    options = {"latents": inputs.latents(2, 8), "guidance_interval": (0.25, 0.75), **QUIET}
    got, wanted = (sd[0](sd[1], inputs.PROMPTS, plan=one, **options).images for one in (plan.pad(rows=6), plan))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_another_window_or_number_of_steps_compiles_nothing(sd):
    pipe, params = sd
    options = {"key": jax.random.key(0), **QUIET}
    pipe(params, inputs.PROMPTS, guidance_interval=(0.0, 0.5), num_inference_steps=2, **options)
    before = sampling._advance._cache_size()
    for interval, steps in (((0.0, 1.0), 3), ((0.4, 0.5), 5)):
        pipe(params, inputs.PROMPTS, guidance_interval=interval, num_inference_steps=steps, **options)
    assert sampling._advance._cache_size() == before


def theirs_with(pair, scheduler):
    """The pair with that scheduler on both sides, as components for `parity.other`."""
    import diffusers

    more = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    them = getattr(diffusers, scheduler).from_config(pair[0].scheduler.config, **more)
    return {"scheduler": getattr(fdiff, scheduler).from_config(dict(them.config))}, {"scheduler": them}


@pytest.mark.parity
@one_scheduler
def test_parity_of_guidance(sd_pair, scheduler):
    import torch
    from diffusers.guiders import ClassifierFreeGuidance

    ours, them = theirs_with(sd_pair, scheduler)
    theirs, pipe, params = sd_pair
    guider = ClassifierFreeGuidance(7.5, start=0.2, stop=0.7)
    them["scheduler"].set_timesteps(STEPS)
    steps = them["scheduler"].timesteps
    latents = inputs.latents()
    with torch.no_grad():
        sides = theirs.encode_prompt(inputs.PROMPTS, "cpu", 1, True, [""] * len(inputs.PROMPTS))
        x = parity.nchw(latents) * them["scheduler"].init_noise_sigma
        for i, t in enumerate(steps):
            guider.set_state(step=i, num_inference_steps=len(steps), timestep=t)
            seen = them["scheduler"].scale_model_input(x, t)
            predictions = [theirs.unet(seen, t, encoder_hidden_states=side).sample for side in sides]
            x = them["scheduler"].step(guider.forward(*predictions).pred, t, x).prev_sample
    options = {"guidance_interval": (0.2, 0.7), "num_inference_steps": STEPS, **QUIET}
    got = pipe.replace(**ours)(params, inputs.PROMPTS, latents=latents, **options).images
    parity.assert_close(got, parity.nhwc(x))


@pytest.mark.parity
@one_scheduler
@pytest.mark.parametrize("count", some([2, 1]))
def test_parity_of_controlnets(sd_pair, scheduler, count, tmp_path):
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    them = [checkpoints.controlnet(seed=seed) for seed in (11, 12)[:count]]
    for i, one in enumerate(them):
        one.save_pretrained(tmp_path / str(i))
    us = [fdiff.ControlNetModel.from_pretrained(tmp_path / str(i)) for i in range(count)]
    components = theirs_with(sd_pair, scheduler)
    components[0]["controlnet"] = tuple(module for module, _ in us) if count > 1 else us[0][0]
    components[1]["controlnet"] = MultiControlNetModel(them) if count > 1 else them[0]
    trees = [tree for _, tree in us] if count > 1 else us[0][1]
    name = "StableDiffusionControlNetPipeline"
    theirs, ours, params = parity.other(sd_pair, name, {"controlnet": trees}, *components)
    images, latents = [inputs.picture(seed=s) / 2 + 0.5 for s in range(1, count + 1)], inputs.latents()
    options = {
        "control_guidance_start": [0.0, 0.3][:count], "control_guidance_end": [0.4, 1.0][:count],
        "num_inference_steps": STEPS,
    } if count > 1 else {"control_guidance_end": 0.6, "num_inference_steps": STEPS}  # fmt: skip
    given = [parity.nchw(image) for image in images]
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, given if count > 1 else given[0], latents=parity.nchw(latents), **options
    )
    got = ours(params, inputs.PROMPTS, images if count > 1 else images[0], latents=latents, **options, **QUIET)
    parity.assert_close(got.images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("scheduler", some(["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"]))
def test_parity_of_a_cut_run(sd_pair, scheduler, tmp_path):
    """PNDM's cut runs begin otherwise, see docs/differences.md."""
    net = checkpoints.controlnet()
    net.save_pretrained(tmp_path)
    module, tree = fdiff.ControlNetModel.from_pretrained(tmp_path)
    mine, them = theirs_with(sd_pair, scheduler)
    theirs, ours, params = parity.other(
        sd_pair, "StableDiffusionControlNetImg2ImgPipeline", {"controlnet": tree}, {**mine, "controlnet": module},
        {**them, "controlnet": net},
    )  # fmt: skip
    image, edges = inputs.picture(), inputs.picture(seed=2) / 2 + 0.5
    options = {"strength": 0.7, "num_inference_steps": 8, "control_guidance_start": 0.2, "control_guidance_end": 0.7}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), parity.nchw(edges), generator=parity.generator(3), **options
    )
    got = ours(params, inputs.PROMPTS, image, edges, torch_seed=3, **options, **QUIET).images
    parity.assert_close(got, wanted)


@pytest.mark.parity
@one_scheduler
def test_parity_of_adapters(xl_pair, scheduler, tmp_path):
    """diffusers takes the factor of the number of steps where rows are more, so it is told more than 1 of them."""
    import diffusers

    net = checkpoints.seeded(lambda: diffusers.T2IAdapter(channels=(32, 64), num_res_blocks=1, downscale_factor=8), 5)
    net.save_pretrained(tmp_path)
    module, tree = fdiff.T2IAdapter.from_pretrained(tmp_path)
    mine, them = theirs_with(xl_pair, scheduler)
    theirs, ours, params = parity.other(
        xl_pair, "StableDiffusionXLAdapterPipeline", {"adapter": tree}, {**mine, "adapter": module},
        {**them, "adapter": net},
    )  # fmt: skip
    image, latents, size = inputs.picture() / 2 + 0.5, inputs.latents(), {"height": 128, "width": 128}
    rows = len(mine["scheduler"].plan(STEPS))
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(np.concatenate([image] * 2)), latents=parity.nchw(latents),
        adapter_conditioning_factor=(int(0.6 * rows) + 0.5) / STEPS, num_inference_steps=STEPS, **size,
    )  # fmt: skip
    options = {"adapter_conditioning_factor": 0.6, "num_inference_steps": STEPS, **size, **QUIET}
    parity.assert_close(ours(params, inputs.PROMPTS, image, latents=latents, **options).images, wanted)


@pytest.mark.parity
@one_scheduler
def test_parity_of_xs(scheduler, tmp_path):
    import diffusers

    made = checkpoints.stable_diffusion(layers_per_block=2, norm_num_groups=32)
    pair = parity.pair(tmp_path / "base", made)
    net = checkpoints.stirred(checkpoints.seeded(
        lambda: diffusers.ControlNetXSAdapter.from_unet(
            made.unet, size_ratio=1.0, conditioning_embedding_out_channels=(4, 8, 8, 16)
        ), 12,
    ))  # fmt: skip
    net.save_pretrained(tmp_path / "adapter")
    module, tree = fdiff.ControlNetXSAdapter.from_pretrained(tmp_path / "adapter")
    mine, them = theirs_with(pair, scheduler)
    theirs, ours, params = parity.other(
        pair, "StableDiffusionControlNetXSPipeline", {"controlnet": tree}, {**mine, "controlnet": module},
        {**them, "controlnet": net},
    )  # fmt: skip
    image, latents = inputs.picture() / 2 + 0.5, inputs.latents(1)
    options = {"control_guidance_start": 0.2, "control_guidance_end": 0.6, "num_inference_steps": STEPS}
    wanted = parity.latents_of(theirs, "a cat", parity.nchw(image), latents=parity.nchw(latents), **options)
    parity.assert_close(ours(params, "a cat", image, latents=latents, **options, **QUIET).images, wanted)
