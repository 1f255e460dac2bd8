"""Prompts that change while a picture is drawn, and prompts that add up, where weighting is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import guidance, sampling
from fdiff.pipelines import changing
from fdiff.rows import at_row
from tests.pipelines import inputs

STEPS = 4
LATENTS = inputs.latents(2, 8)


def asked(pair, prompt, **options):
    pipe, params = pair
    options = {"weighted": True, "num_inference_steps": STEPS, "latents": LATENTS[:1], **options}
    return pipe.steps(params, prompt, **options)


def draw(pair, prompt, **options):
    *_, (state, _) = asked(pair, prompt, **options)
    return np.asarray(state.x)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def in_turn(runs, which):
    """The last x of a run whose network is that of `runs[which[i]]` at row i."""
    state = sampling.init(runs[0].plan, runs[0].x)
    for i, one in enumerate(which):
        state, _ = sampling._advance(runs[one].network, runs[0].plan[i], state, None, None, None)
    return state.x


@pytest.mark.parametrize(
    ("name", "strength", "wanted"),
    [
        ("DDIMScheduler", 1.0, [0, 1, 2, 3, 4, 5]), ("HeunDiscreteScheduler", 1.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]),
        ("KDPM2DiscreteScheduler", 0.5, [0, 0, 1, 1, 2]), ("PNDMScheduler", 1.0, [0, 0, 1, 2, 3, 4, 5]),
        ("PNDMScheduler", 0.5, [0, 0, 1, 2]), ("DDIMScheduler", 0.5, [0, 1, 2]), ("PNDMScheduler", 0.2, [0]),
    ],
)  # fmt: skip
def test_which_step_a_row_is(name, strength, wanted):
    scheduler = getattr(fdiff, name)(**({"skip_prk_steps": True} if name == "PNDMScheduler" else {}))
    assert changing.steps_of_rows(scheduler, scheduler.plan(6, strength=strength)).tolist() == wanted


def test_what_is_read_when():
    read = {"prompt": ["a [cat:dog:2]", "b"], "prompt_2": ["a [cat:dog:2]", "[c|d]"]}
    found = changing.script(read, 4)
    assert found.which.tolist() == [0, 1, 2, 3]
    assert [one["prompt"][0] for one in found.texts] == ["a cat", "a cat", "a dog", "a dog"]
    assert [one["prompt_2"][1] for one in found.texts] == ["c", "d", "c", "d"]
    assert changing.script({"prompt": ["[a:b:0.5]"]}, 9).which.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert changing.script({"prompt": ["[a|b]", r"\[a|b\] (c:1.2)"]}, 5).which.tolist() == [0, 1, 0, 1, 0]


def test_parts_of_several_prompts():
    texts, weights = changing.parts({"prompt": ["a AND b:0.5", "c"], "prompt_2": ["d AND e", "f"]})
    assert [one["prompt"] for one in texts] == [["a", "c"], [" b", "c"]]
    assert [one["prompt_2"] for one in texts] == [["d", "f"], [" e", "f"]]
    assert [one.tolist() for one in weights] == [[1, 1], [0.5, 0]]
    with pytest.raises(ValueError, match="prompt_2 has 3 parts between its ANDs and prompt has 2; write as many"):
        changing.parts({"prompt": ["a AND b"], "prompt_2": ["a AND b AND c"]})


@pytest.mark.parametrize(
    ("prompt", "which"),
    [
        ("a [cat:dog:0.5]", [0, 0, 1, 1]), ("a [cat:dog:3]", [0, 0, 0, 1]), ("a [cat|dog]", [0, 1, 0, 1]),
        ("a [cat:dog:0]", [1] * 4), ("a [cat:dog:1.0]", [0] * 4),
    ],
)  # fmt: skip
def test_a_prompt_that_changes_is_one_and_then_the_other(sd, prompt, which):
    runs = [asked(sd, one) for one in ("a cat", "a dog")]
    close(draw(sd, prompt), in_turn(runs, which))


def test_both_rows_of_a_step_read_one_prompt(sd):
    heun = (sd[0].replace(scheduler=fdiff.HeunDiscreteScheduler.from_config(sd[0].scheduler)), sd[1])
    runs = [asked(heun, one) for one in ("a cat", "a dog")]
    close(draw(heun, "a [cat|dog]"), in_turn(runs, [0, 0, 1, 1, 0, 0, 1]))


def test_each_of_a_batch_changes_by_itself_on_both_sides(sd):
    options = {"latents": np.repeat(LATENTS, 2, axis=0), "num_images_per_prompt": 2}
    both = draw(sd, ["a [cat:dog:1]", "a house"], negative_prompt=["bad", "[x|y]"], **options)
    for i, (prompt, negative) in enumerate((("a [cat:dog:1]", "bad"), ("a house", "[x|y]"))):
        alone = draw(sd, prompt, negative_prompt=negative, latents=LATENTS[i : i + 1])
        close(both[2 * i : 2 * i + 2], np.repeat(alone, 2, axis=0))
    runs = [asked(sd, "a house", negative_prompt=one, latents=LATENTS[1:]) for one in ("x", "y")]
    close(both[2:3], in_turn(runs, [0, 1, 0, 1]))


def test_long_prompts_and_pictures(sd):
    pipe, params = sd
    long, options = "a tall tree " * 40, {"chunked": True}
    runs = [asked(sd, long + one, **options) for one in ("cat", "dog")]
    close(draw(sd, long + "[cat:dog:0.5]", **options), in_turn(runs, [0, 0, 1, 1]))
    redrawing = fdiff.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    painting = fdiff.StableDiffusionInpaintPipeline.from_pipe(pipe)
    for other, given in ((redrawing, {}), (painting, {"mask_image": inputs.mask(16)})):
        more = {"image": inputs.picture(16), "strength": 0.5, "key": jax.random.key(0), **given}
        run = other.steps(params, "a [cat:dog:0.5]", weighted=True, num_inference_steps=STEPS, **more)
        texts = [at_row(run.network, i).args[1].text for i in range(len(run))]
        wanted = pipe.encode_prompt(params, ["a cat", "a dog"])[0].embeddings
        assert len(run) == 2
        close(jnp.concatenate(texts), wanted)


def test_xl_changes_its_pooled_text_too(xl):
    pipe, params = xl
    run = asked(xl, "a [cat:dog:0.5]", prompt_2="a [bird:fish:1]")
    conditions = [at_row(run.network, i).args[1] for i in range(STEPS)]
    for i, (first, second) in enumerate((("cat", "bird"), ("cat", "fish"), ("dog", "fish"), ("dog", "fish"))):
        wanted, _ = pipe.encode_prompt(params, f"a {first}", prompt_2=f"a {second}")
        close(conditions[i].text, wanted.embeddings)
        close(conditions[i].added["text_embeds"], wanted.pooled)


def test_another_prompt_or_number_of_steps_compiles_nothing(sd):
    draw(sd, "a cat", num_inference_steps=2)
    before = sampling._advance._cache_size()
    for prompt, steps in (("a [cat:dog:0.5]", 3), ("[a|b|c]", 5)):
        draw(sd, prompt, num_inference_steps=steps)
    assert sampling._advance._cache_size() == before


@pytest.mark.parametrize(
    "prompt",
    ["a cat AND a dog:0", "a cat:0.3 AND a cat:0.7", "a dog:0 AND a cat", "a cat AND a cat:0.5 AND a cat:-0.5"],
)
def test_parts_that_come_to_one_prompt(sd, prompt):
    close(draw(sd, prompt), draw(sd, "a cat"))


def test_prompts_add_up(sd):
    pipe, params = sd
    run = asked(sd, "a cat AND a [dog:house:0.5] :0.7", guidance_scale=3.0, guidance_rescale=0.4)
    positive, negative = pipe.encode_prompt(params, ["a cat", "a dog", "a house"])
    x, t = jnp.asarray(LATENTS[:1]), run.plan.t[0]

    def says(embeddings):
        return np.asarray(pipe.unet.apply({"params": params["unet"]}, x, t, embeddings))

    without, (cat, dog, house) = says(negative.embeddings[:1]), (says(one[None]) for one in positive.embeddings)
    for i, other in ((0, dog), (3, house)):
        both = without + (cat - without) + 0.7 * (other - without)
        guided = without + 3 * (both - without)
        wanted = guided * (0.4 * both.std() / guided.std() + 0.6)
        close(at_row(run.network, i)(x, t), wanted)


def test_parts_of_a_batch_stay_with_it(sd):
    together = draw(sd, ["a cat AND a dog:0.5", "a house"], latents=LATENTS)
    close(together[:1], draw(sd, "a cat AND a dog:0.5"))
    close(together[1:], draw(sd, "a house", latents=LATENTS[1:]))


def test_guidance_of_sums_in_a_part_of_the_run(sd):
    options = {"guidance_interval": (0.0, 0.5)}
    close(draw(sd, "a cat AND a dog:0", **options), draw(sd, "a cat", **options))


@pytest.mark.parametrize("guide", [guidance.adaptive_projected, guidance.zero_star])
def test_sums_under_other_guidance(guide):
    def network(x, t, condition):
        return jnp.sin(x + condition[:, None])

    x, one, other, negative = (jnp.asarray(np.random.default_rng(i).normal(size=size), jnp.float32)
                               for i, size in enumerate(((2, 3), 2, 2, 2)))  # fmt: skip
    summed = guidance.Sum((one, other), (jnp.float32([1.0, 0.4]), jnp.float32([0.0, 0.6])))
    without = network(x, 0.0, negative)

    got = guide(network, summed, negative, 3.0)(x, 0.0)
    zeros, ones = jnp.zeros(1), jnp.ones(1)
    parts = zip(summed.conditions, summed.weights, strict=True)
    positive = without + sum(w[:, None] * (network(x, 0.0, c) - without) for c, w in parts)
    for i in range(2):
        said = jnp.stack([without[i], positive[i]])
        wanted = guide(lambda x, t, c: said[c.astype(int)], ones, zeros, 3.0)(x[i : i + 1], 0.0)  # noqa: B023
        np.testing.assert_allclose(got[i : i + 1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("a AND b", {"guidance_scale": 1.0}, "the prompt has AND, which adds .*; raise guidance_scale"),
        ("a", {"negative_prompt": "b AND c"}, "the negative prompt has AND, .* write it in small letters"),
    ],
)
def test_what_cannot_add_up_is_named(sd, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        asked(sd, prompt, **options)


def test_a_sum_needs_a_negative_condition():
    with pytest.raises(ValueError, match="conditions add up with guidance alone; give a negative one too"):
        guidance.given(lambda x, t, c: x, guidance.Sum((1.0,), (1.0,)))
