"""Stable Diffusion from text: equal to diffusers, seeds stand alone, nothing compiles twice, bad input is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import guidance, sampling
from fdiff.adapters import lora
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import edits
from fdiff.pipelines import denoise, text
from tests.pipelines import checkpoints, inputs, parity
from tests.some import some

PROMPTS = inputs.PROMPTS
QUIET = {"output_type": "latent", "progress": False}
LATENTS = inputs.latents(size=8)


def draw(sd, prompts=PROMPTS, **options):
    pipe, params = sd
    options = {"num_inference_steps": 20, **({} if "prompt_embeds" in options else {"prompt": prompts}), **options}
    return np.asarray(pipe(params, **QUIET, **options).images)


class TestReference:
    """What diffusers drew from torch's seed 42."""

    def test_guided(self, sd, drawn):
        parity.assert_close(draw(sd, torch_seed=42, negative_prompt="blurry"), drawn["text"], 1e-4)

    def test_unguided(self, sd, drawn):
        parity.assert_close(draw(sd, torch_seed=42, guidance_scale=1.0), drawn["text_unguided"], 1e-4)

    def test_stochastic(self, sd, drawn):
        plan = sd[0].scheduler.plan(20, eta=1.0)
        options = {"torch_seed": 42, "negative_prompt": "blurry"}
        parity.assert_close(draw(sd, plan=plan, **options), drawn["text_stochastic"], 1e-4)
        pipe = sd[0].replace(scheduler=fdiff.EulerAncestralDiscreteScheduler.from_config(sd[0].scheduler))
        parity.assert_close(draw((pipe, sd[1]), **options), drawn["text_ancestral"], 1e-4)


def test_host_class_is_the_pure_function(sd):
    pipe, params = sd
    key, plan = jax.random.key(3), pipe.scheduler.plan(4)
    positive, negative = pipe.encode_prompt(params, PROMPTS, "blurry")
    both = denoise.Condition(positive.embeddings), denoise.Condition(negative.embeddings)
    pure = jax.jit(fdiff.text_to_image, static_argnums=(0, 1), static_argnames="size")
    pictures = pure(pipe.unet, pipe.vae, params, plan, *both, key, size=(16, 16))
    options = {"negative_prompt": "blurry", "num_inference_steps": 4, "progress": False, "output_type": "array"}
    np.testing.assert_allclose(pipe(params, PROMPTS, key=key, **options).images, pictures, atol=2e-5)


def test_each_picture_has_its_own_key(sd):
    keys = jax.random.split(jax.random.key(0), 2)
    two = draw(sd, PROMPTS[0], key=keys, num_inference_steps=2, num_images_per_prompt=2)
    one = draw(sd, PROMPTS[0], key=keys[1:], num_inference_steps=2)
    np.testing.assert_allclose(one, two[1:], atol=1e-4)


def test_torch_seeds_one_each(sd):
    two = draw(sd, torch_seed=[7, 42], num_inference_steps=2)
    np.testing.assert_allclose(draw(sd, PROMPTS[1], torch_seed=42, num_inference_steps=2), two[1:], atol=1e-4)


def test_latents_and_embeddings_in_and_out(sd):
    pipe, params = sd
    options = {"latents": LATENTS, "num_inference_steps": 2}
    wanted = draw(sd, negative_prompt="blurry", **options)
    positive, negative = pipe.encode_prompt(params, PROMPTS, "blurry")
    for embeddings in ((positive, negative), (positive.embeddings, negative.embeddings)):
        given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeddings, strict=True))
        np.testing.assert_allclose(draw(sd, **given, **options), wanted, atol=1e-6)
    np.testing.assert_allclose(draw(sd, prompt_embeds=positive, negative_prompt="blurry", **options), wanted, atol=1e-6)


def test_nothing_is_compiled_twice(sd):
    pipe, params = sd
    draw(sd, key=jax.random.key(0), num_inference_steps=2)
    programs = (sampling._advance, text.encode_jit)
    before = [program._cache_size() for program in programs]
    other = {"prompts": ["a", "b"], "key": jax.random.key(5), "num_inference_steps": 5, "negative_prompt": "c"}
    draw(sd, **other, guidance_scale=3.0, guidance_rescale=0.5)
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler", "DDPMScheduler"):
        scheduler = getattr(fdiff, name).from_config(pipe.scheduler)
        draw((pipe.replace(scheduler=scheduler), params), **other)
    draw(sd, prompts=["a", "b"], torch_seed=1, num_inference_steps=2)
    assert [program._cache_size() for program in programs] == before


def test_guidance_in_a_part_of_the_run(sd):
    options = {"latents": LATENTS, "num_inference_steps": 4}
    whole, none = draw(sd, **options), draw(sd, guidance_scale=1.0, **options)
    np.testing.assert_allclose(draw(sd, guidance_interval=(0.0, 1.0), **options), whole, atol=1e-4)
    np.testing.assert_allclose(draw(sd, guidance_interval=(0.5, 0.5), **options), none, atol=1e-4)
    plan = sd[0].scheduler.plan(4)
    assert denoise.rows_within(plan, (0.25, 0.75)).values.tolist() == [0, 1, 1, 0]


def test_other_guiders(sd):
    perturb = denoise.attention_perturbed(sd[1]["unet"], "attentions.*attn1")
    perturbed = functools.partial(guidance.perturbed, perturb=perturb, perturbed_scale=0.0)
    options = {"key": jax.random.key(0), "num_inference_steps": 1}
    plain = draw(sd, **options)
    np.testing.assert_allclose(draw(sd, guider=perturbed, **options), plain, atol=1e-5)
    stronger = functools.partial(guidance.perturbed, perturb=perturb, perturbed_scale=5.0)
    assert np.abs(draw(sd, guider=stronger, **options) - plain).max() > 1e-3


def test_adapters_that_are_not_merged(sd):
    pipe, params = sd
    random = np.random.default_rng(0)

    def factors(width):
        down, up = (random.normal(size=shape).astype(np.float32) for shape in ((2, 16), (width, 2)))
        return lora.Factors(down, up, 2.0)

    adapter = {
        "unet": {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k": factors(8)},
        "text_encoder": {"text_model.encoder.layers.0.self_attn.q_proj": factors(16)},
    }
    options = {"latents": LATENTS, "num_inference_steps": 1}
    merged, _ = lora.merge(params, (adapter, 0.5))
    running = {**params, "lora": lora.collection(params, (adapter, 0.5))}
    plain, wanted = draw(sd, **options), draw((pipe, merged), **options)
    assert np.abs(wanted - plain).max() > 1e-3
    np.testing.assert_allclose(draw((pipe, running), **options), wanted, atol=1e-4)


def test_a_picture_as_a_prompt(sd):
    pipe, params = sd
    path = params["unet"]["mid_block"]["attentions.0"]["transformer_blocks.0"]["attn2"]
    kernel = {"kernel": jnp.ones((5, path["to_k"]["kernel"].shape[1]))}
    layer = {"to_k_ip": kernel, "to_v_ip": kernel}
    tree = {"mid_block": {"attentions.0": {"transformer_blocks.0": {"attn2": layer}}}}
    seen, unseen = (edits.image_prompt(tree, tokens, 0.7) for tokens in (jnp.ones((1, 3, 5)), jnp.zeros((1, 3, 5))))
    run = pipe.steps(params, PROMPTS, latents=LATENTS, attention=(seen, unseen))
    positive, negative = pipe.encode_prompt(params, PROMPTS)
    x, t = jnp.asarray(LATENTS), run.plan.t[0]

    def says(embeddings, tokens):
        collection = edits.image_prompt(tree, jnp.broadcast_to(tokens, (2, 3, 5)), 0.7)
        return pipe.unet.apply({"params": params["unet"], "attention": collection}, x, t, embeddings)

    none, both = says(negative.embeddings, jnp.zeros(())), says(positive.embeddings, jnp.ones(()))
    np.testing.assert_allclose(run.network(x, t), none + 7.5 * (both - none), atol=1e-4)


def test_previews_and_early_stops_are_loop_bodies(sd):
    pipe, params = sd
    run = pipe.steps(params, PROMPTS[0], key=jax.random.key(0), num_inference_steps=4)
    assert len(run) == 4
    for state, x0 in run:
        if state.done == 2:
            assert pipe.decode(params, x0).shape == (1, 16, 16, 3)
            break


def test_pictures_in_tiles(sd):
    pipe, params = sd
    whole, tiled = (pipe.decode(params, LATENTS[:1], tile_size) for tile_size in (None, 8))
    assert tiled.shape == whole.shape and np.abs(tiled - whole).max() < np.abs(whole).max()


def test_half_precisions(sd, reference):
    pipe, params = sd
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    wanted, got = (draw((pipe, tree), latents=LATENTS, guidance_scale=1.0) for tree in (params, half))
    assert got.dtype == np.float32 and np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()
    _, loaded = fdiff.DiffusionPipeline.from_pretrained(
        reference / "pipelines" / "sd", dtype="float16", tokenizer=pipe.tokenizer
    )
    assert loaded["unet"]["conv_in"]["kernel"].dtype == jnp.float16
    assert loaded["vae"]["decoder"]["conv_in"]["kernel"].dtype == jnp.float32  # for which float16 is too narrow


def test_params_serve_another_pipeline_and_a_folder(sd, tmp_path):
    pipe, params = sd
    pipe.save_pretrained(tmp_path / "saved", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(again) is fdiff.StableDiffusionPipeline and again.unet == pipe.unet
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    other = fdiff.StableDiffusionInpaintPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet
    with pytest.raises(ValueError, match="no controlnet, which StableDiffusionControlNetPipeline needs"):
        fdiff.StableDiffusionControlNetPipeline.from_pipe(pipe)
    (tmp_path / "saved" / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="vae"):
        fdiff.DiffusionPipeline.from_pretrained(tmp_path / "saved")


def test_the_safety_checker_is_loaded_when_asked_for(sd, reference, tmp_path):
    pipe, params = sd
    checker, tree = fdiff.StableDiffusionSafetyChecker.from_pretrained(reference / "clip" / "safety_checker")
    tree["concept_embeds_weights"] = jnp.full(17, -1.0, jnp.float32)  # so everything is unsafe
    processor = CLIPImageProcessor(size=28, crop_size=28)
    checked = pipe.replace(safety_checker=checker, feature_extractor=processor)
    checked.save_pretrained(tmp_path / "checked", {**params, "safety_checker": tree})
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path / "checked")[0].safety_checker is None
    asked = {"safety_checker": True, "feature_extractor": True}
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "checked", **asked)
    assert again.feature_extractor == processor
    options = {"key": jax.random.key(0), "num_inference_steps": 2, "progress": False, "output_type": "np"}
    output = again(loaded, PROMPTS, **options)
    assert output.nsfw_content_detected.all() and not output.images.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": 3}, "prompt must be a string or a list of strings, not int"),
        ({"prompt": ["a", None]}, "not NoneType"),
        ({"prompt": []}, "empty list"),
        ({}, "pass either prompt or prompt_embeds"),
        ({"prompt": "a", "negative_prompt": ["b", "c"]}, "2 texts are given as negative_prompt for 1 prompts"),
        ({"prompt": "a", "height": 20}, "height is 20; it must be a multiple of 8, such as 16"),
        ({"prompt": "a", "width": 16.0}, "width is 16.0"),
        ({"prompt": "a", "latents": np.zeros((1, 4, 8, 8))}, "latents have shape"),
        ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"prompt": "a", "num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"prompt": "a", "torch_seed": 1}, "both key and torch_seed"),
        ({"prompt": "a", "key": None}, "noise is needed"),
        ({"prompt": "a", "key": None, "torch_seed": [1, 2]}, "2 seeds are given for 1 images"),
        ({"prompt": "a", "guidance_interval": (0.5, 0.2)}, "guidance_interval"),
        ({"prompt": "a", "guidance_interval": 0.5}, "guidance_interval is 0.5; it must be two numbers"),
        ({"prompt": "a", "guidance_scale": np.nan}, "guidance_scale is nan; it must be a number"),
        ({"prompt": "a", "guidance_scale": "7"}, "guidance_scale is '7'; it must be a number"),
        ({"prompt": "a", "guidance_scale": [1.0, 2.0, 3.0]}, "guidance_scale has 3 numbers for 1 pictures"),
        ({"prompt": "a", "guidance_rescale": np.nan}, "guidance_rescale is nan; it must be a number"),
        ({"prompt": "a", "guidance_rescale": 1.5}, "guidance_rescale is 1.5; it must lie within 0 and 1"),
        ({"prompt": "a", "height": 0}, "height is 0; it must be a multiple of 8, such as 8"),
        ({"prompt": "a", "height": "16"}, "height is '16'; it must be a multiple of 8"),
        ({"prompt": "a", "width": np.nan}, "width is nan; it must be a multiple of 8"),
        ({"prompt": "a", "num_inference_steps": None}, "num_inference_steps is None; it must be a whole number"),
        ({"prompt": "a", "plan": 5}, "plan must be a table"),
        ({"prompt": "a", "key": 0}, "key must be a JAX key or one for each image, such as .*, not int"),
        ({"prompt": "a", "key": None, "torch_seed": "x"}, "torch_seed is 'x'; it must be a whole number"),
        ({"prompt": "a", "key": None, "torch_seed": [1.5]}, "torch_seed is 1.5; it must be a whole number"),
        ({"prompt": "a", "latents": np.full((1, 8, 8, 4), np.nan)}, "latents holds numbers that are not finite"),
        ({"prompt": "a", "clip_skip": 1.5}, "clip_skip is 1.5; it must be a whole number"),
        ({"prompt_embeds": "a cat"}, "prompt_embeds has the type str; it must be an array"),
        ({"prompt_embeds": np.full((1, 77, 16), np.nan)}, "prompt_embeds holds numbers that are not finite"),
        ({"prompt": "a", "negative_prompt": "b", "negative_prompt_embeds": np.zeros((1, 77, 16))},
         "both negative_prompt and negative_prompt_embeds are given"),
        ({"prompt": "a", "clip_skip": 9}, "clip_skip 9"),
        ({"prompt": "a", "output_type": "jpg"}, "output_type is 'jpg'; it can be latent, pil, np, array"),
        ({"prompt_embeds": np.zeros((1, 77, 24))}, "the unet reads text of 16 channels and the prompt's has 24"),
    ],
)
def test_bad_input_is_named_before_the_first_step(sd, options, message):
    pipe, params = sd
    if "prompt_embeds" in options:
        options = {**options, "guidance_scale": 1.0}
    with pytest.raises(ValueError, match=message):
        pipe(params, **{"key": jax.random.key(0), "num_inference_steps": 2, "progress": False, **options})


@pytest.mark.parametrize("name", ["unet", "text_encoder", "vae"])
def test_params_that_lack_a_model_are_named_before_the_first_step(sd, name):
    pipe, params = sd
    some = {key: tree for key, tree in params.items() if key != name}
    with pytest.raises(ValueError, match=f"params has no '{name}'; pass the params that from_pretrained gave"):
        pipe(some, "a", key=jax.random.key(0), num_inference_steps=2)


def test_keys_may_be_of_the_old_style(sd):
    new = draw(sd, "a", key=jax.random.key(5), num_inference_steps=2)
    np.testing.assert_array_equal(draw(sd, "a", key=jax.random.PRNGKey(5), num_inference_steps=2), new)
    many = jax.random.split(jax.random.PRNGKey(5), 2)
    typed = jax.random.split(jax.random.key(5), 2)
    options = {"num_inference_steps": 2, "num_images_per_prompt": 2}
    np.testing.assert_array_equal(draw(sd, "a", key=many, **options), draw(sd, "a", key=typed, **options))


def test_a_run_may_be_traced(sd):
    pipe, params = sd
    embeds = tuple(one.embeddings for one in pipe.encode_prompt(params, "a", "b"))
    options = {"num_inference_steps": 2, "key": jax.random.key(0)}

    @jax.jit
    def drawn(params, latents, embeds):
        run = pipe.steps(params, prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], latents=latents, **options)
        return sampling.sample(run.network, run.plan, run.x, run.key)

    wanted = draw(sd, prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], latents=LATENTS[:1], **options)
    np.testing.assert_allclose(drawn(params, LATENTS[:1], embeds), wanted, atol=1e-5)


def test_scales_may_be_traced_and_of_any_kind(sd):
    pipe, params = sd
    options = {"num_inference_steps": 1, "key": jax.random.key(0)}

    @jax.jit
    def drawn(scale, rescale):
        run = pipe.steps(params, "a", guidance_scale=scale, guidance_rescale=rescale, **options)
        return sampling.sample(run.network, run.plan, run.x, run.key)

    wanted = draw(sd, "a", guidance_scale=3.0, guidance_rescale=0.5, **options)
    np.testing.assert_allclose(drawn(3.0, 0.5), wanted, atol=1e-5)
    half = draw(sd, "a", guidance_scale=jnp.bfloat16(3), guidance_rescale=jnp.full((1,), 0.5, jnp.bfloat16), **options)
    np.testing.assert_allclose(half, wanted, atol=1e-5)


def test_an_autoencoder_that_gives_no_numbers_is_named(sd):
    pipe, params = sd
    broken = {**params, "vae": jax.tree.map(lambda leaf: leaf * jnp.nan, params["vae"])}
    for output_type in ("array", "np", "pil"):
        with pytest.raises(ValueError, match="not finite"):
            pipe(broken, "a", key=jax.random.key(0), num_inference_steps=1, progress=False, output_type=output_type)


def test_a_network_that_gives_no_numbers_is_named(sd):
    pipe, params = sd
    broken = {**params, "unet": jax.tree.map(lambda leaf: leaf * jnp.nan, params["unet"])}
    with pytest.raises(ValueError, match="not finite"):
        pipe(broken, PROMPTS, key=jax.random.key(0), num_inference_steps=2, progress=False)


@pytest.mark.parity
class TestParity:
    """The pipeline of diffusers, live, on a medium random checkpoint."""

    latents = inputs.latents()

    def both(self, pair, **options):
        them, us, params = pair
        theirs = parity.latents_of(them, PROMPTS, latents=parity.nchw(self.latents), **options)
        ours = us(params, PROMPTS, latents=self.latents, output_type="latent", progress=False, **options)
        return ours.images, theirs

    def test_guided_and_decoded(self, sd_pair):
        them, us, params = sd_pair
        ours, theirs = self.both(sd_pair, negative_prompt=["blurry", "dog"], guidance_scale=7.5, num_inference_steps=20)
        parity.assert_close(ours, theirs)
        pictures = them.vae.decode(parity.nchw(theirs) / them.vae.config.scaling_factor).sample
        parity.assert_close(us.decode(params, ours), np.moveaxis(pictures.detach().numpy(), 1, -1))

    def test_rescaled_and_clip_skip(self, sd_pair):
        them, us, params = sd_pair
        ids = them.tokenizer(["", *PROMPTS], padding="max_length", return_tensors="pt").input_ids
        output = them.text_encoder(ids, output_hidden_states=True)
        skipped = them.text_encoder.final_layer_norm(output.hidden_states[-2])[1:].detach()
        nothing = output.last_hidden_state[[0, 0]].detach()
        options = {"guidance_scale": 5.0, "guidance_rescale": 0.7, "num_inference_steps": 20}
        embeddings = {"prompt_embeds": skipped, "negative_prompt_embeds": nothing}
        theirs = parity.latents_of(them, latents=parity.nchw(self.latents), **embeddings, **options)
        ours = us(params, PROMPTS, latents=self.latents, output_type="latent", progress=False, clip_skip=1, **options)
        parity.assert_close(ours.images, theirs)

    def test_unguided_with_embeddings(self, sd_pair):
        _, us, params = sd_pair
        embeddings, _ = us.encode_prompt(params, PROMPTS)
        ours, theirs = self.both(sd_pair, guidance_scale=1.0, num_inference_steps=20)
        parity.assert_close(ours, theirs)
        options = {"guidance_scale": 1.0, "num_inference_steps": 20, "output_type": "latent", "progress": False}
        from_embeddings = us(params, prompt_embeds=embeddings.embeddings, latents=self.latents, **options)
        np.testing.assert_allclose(from_embeddings.images, ours, atol=1e-6)

    def test_stochastic_solver_with_torch_seed(self, sd_pair):
        from diffusers import DPMSolverMultistepScheduler

        them, us, params = sd_pair
        options = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
        theirs = parity.quiet(type(them)(**them.components, requires_safety_checker=False))
        theirs.scheduler = DPMSolverMultistepScheduler.from_config(us.scheduler.to_config(), **options)
        scheduler = fdiff.DPMSolverMultistepScheduler.from_config(us.scheduler, **options)
        wanted = parity.latents_of(theirs, PROMPTS, generator=parity.generator(42), num_inference_steps=20)
        options = {"torch_seed": 42, "num_inference_steps": 20, **QUIET}
        parity.assert_close(us.replace(scheduler=scheduler)(params, PROMPTS, **options).images, wanted)

    @pytest.mark.parametrize(
        ("name", "config", "plan"),
        some([
            ("SASolverScheduler", {}, {}),  # draws at every row, and uses it from timestep 200 to 800
            ("SASolverScheduler", {"algorithm_type": "noise_prediction"}, {"tau": 0.5}),
            ("DDIMScheduler", {}, {"eta": 0.7}),
            ("DDPMScheduler", {"timestep_spacing": "trailing"}, {}),
            ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
            ("EulerAncestralDiscreteScheduler", {}, {}),
            ("KDPM2AncestralDiscreteScheduler", {}, {}),
            ("LCMScheduler", {}, {}),
            ("TCDScheduler", {}, {"eta": 0.3}),
        ], count=3),
    )  # fmt: skip
    def test_every_stochastic_scheduler_by_one_generator(self, sd_pair, name, config, plan):
        """Two runs of two pictures draw from one generator, so that what is drawn and dropped counts, to the last."""
        import diffusers

        them, us, params = sd_pair
        ours = getattr(fdiff, name).from_config(us.scheduler, **config)
        tau = {"tau_func": lambda t: plan["tau"]} if "tau" in plan else {}
        theirs = parity.quiet(type(them)(**them.components, requires_safety_checker=False))
        theirs.scheduler = getattr(diffusers, name).from_config(us.scheduler.to_config(), **config, **tau)
        options, generator = {"num_inference_steps": 6}, parity.generator(42)
        eta = {"eta": plan["eta"]} if "eta" in plan else {}
        wanted = [parity.latents_of(theirs, PROMPTS, generator=generator, **eta, **options) for _ in range(2)]
        seed = fdiff.torch_random.CPUGenerator(42)
        run = us.replace(scheduler=ours)
        for latents in wanted:
            got = run(params, PROMPTS, torch_seed=seed, plan=ours.plan(6, **plan), **QUIET).images
            parity.assert_close(got, latents)

    def test_v_prediction_and_linear_projections(self, tmp_path):
        from diffusers import EulerDiscreteScheduler

        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
        )
        made = checkpoints.stable_diffusion(
            scheduler=scheduler, use_linear_projection=True, attention_head_dim=(2, 4), time_cond_proj_dim=32
        )
        options = {"guidance_scale": 6.0, "num_inference_steps": 20}
        parity.assert_close(*self.both(parity.pair(tmp_path, made), **options))
