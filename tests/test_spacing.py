import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdiff import noise, schedulers, spacing

kinds = st.sampled_from(["linspace", "leading", "trailing"])
fast = settings(max_examples=40, deadline=None)
TRAIN = np.sqrt(1 / noise.alphas_cumprod(noise.betas("scaled_linear", 1000, 0.00085, 0.012)) - 1)


@fast
@given(kinds, st.integers(1, 1000), st.data())
def test_timesteps_fall_within_the_trained_range(kind, most, data):
    n = data.draw(st.integers(1, most))
    t = spacing.timesteps(kind, most, n)
    assert len(t) == n and np.all(np.diff(t) < 0)
    assert t[-1] >= 0 and t[0] <= most - 1
    assert (t[0] == most - 1) if kind == "trailing" else (t[-1] == 0 or n == 1)


def test_timesteps_of_each_kind():
    np.testing.assert_array_equal(spacing.timesteps("linspace", 1000, 4), [999, 666, 333, 0])
    np.testing.assert_array_equal(spacing.timesteps("leading", 1000, 4, offset=1), [751, 501, 251, 1])
    np.testing.assert_array_equal(spacing.timesteps("trailing", 1000, 4), [999, 749, 499, 249])
    assert len(spacing.timesteps("linspace", 10, 25, between=True)) == 25


@pytest.mark.parametrize("n", [0, -3, 2.0, True, None, 1001])
def test_a_bad_number_of_steps_is_one_sentence(n):
    with pytest.raises(ValueError, match="num_inference_steps is"):
        spacing.timesteps("leading", 1000, n)


def test_an_unknown_spacing_is_one_sentence():
    with pytest.raises(ValueError, match="leading, trailing or linspace"):
        spacing.timesteps("quadratic", 1000, 10)


@fast
@given(st.sampled_from(sorted(spacing.LAYOUTS)), st.floats(1e-3, 1.0), st.floats(1.5, 1000.0), st.integers(2, 60))
def test_laid_out_sigmas_fall_from_one_end_to_the_other(layout, low, high, n):
    sigmas = spacing.lay_out(layout, np.array([high, low]), n)
    assert len(sigmas) == n and np.all(np.diff(sigmas) < 0)
    np.testing.assert_allclose(sigmas[[0, -1]], [high, low], rtol=1e-9)
    assert spacing.lay_out(layout, sigmas, n, 0.5 * low, 2 * high)[0] == pytest.approx(2 * high)


def test_karras_is_even_in_the_root_and_exponential_in_the_logarithm():
    assert np.ptp(np.diff(spacing.karras(0.1, 10, 20) ** (1 / 7))) < 1e-12
    assert np.ptp(np.diff(np.log(spacing.exponential(0.1, 10, 20)))) < 1e-12


def test_two_layouts_contradict_each_other():
    assert spacing.one_layout(karras=True, beta=False, exponential=None) == "karras"
    assert spacing.one_layout(karras=False, beta=None) is None
    with pytest.raises(ValueError, match="karras and beta sigmas contradict each other"):
        spacing.one_layout(karras=True, beta=True)


@fast
@given(st.floats(0.1, 20))
def test_flow_shift_keeps_both_ends_and_has_an_inverse(shift):
    sigmas = np.linspace(0, 1, 11)
    shifted = spacing.shift_flow(sigmas, shift)
    np.testing.assert_allclose(shifted[[0, -1]], [0, 1], atol=1e-12)
    np.testing.assert_allclose(spacing.shift_flow(shifted, 1 / shift), sigmas, atol=1e-12)
    np.testing.assert_allclose(spacing.shift_flow_by(sigmas, np.log(shift)), shifted, atol=1e-12)
    np.testing.assert_allclose(spacing.shift_flow_by(sigmas, shift, "linear"), shifted, atol=1e-12)


def test_a_stretched_flow_ends_at_its_terminal():
    stretched = spacing.stretch_flow(np.linspace(1, 0.02, 9), 0.1)
    assert stretched[0] == 1 and stretched[-1] == pytest.approx(0.1) and np.all(np.diff(stretched) < 0)


def test_timesteps_of_sigmas_invert_the_schedule():
    t = np.array([999.0, 400.0, 3.0, 0.0])
    np.testing.assert_allclose(spacing.interpolate_timesteps(TRAIN[t.astype(int)], TRAIN), t, atol=1e-9)
    assert spacing.interpolate_timesteps(np.array([1e6, 0.0]), TRAIN).tolist() == [999, 0]
    assert 7 < spacing.interpolate_timesteps(np.array([np.sqrt(TRAIN[7] * TRAIN[8])]), TRAIN)[0] < 8


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["karras", "exponential", "beta"])
def test_layouts_against_diffusers(layout):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EulerDiscreteScheduler()
    sigmas = TRAIN[::-1]
    wanted = getattr(scheduler, f"_convert_to_{layout}")(in_sigmas=sigmas, num_inference_steps=37)
    got = spacing.lay_out(layout, sigmas, 37)
    np.testing.assert_allclose(got, wanted, rtol=1e-9)
    np.testing.assert_allclose(spacing.interpolate_timesteps(got, TRAIN),
                               [scheduler._sigma_to_t(s, np.log(TRAIN)) for s in wanted], atol=1e-6)


@fast
@given(st.integers(1, 1000), st.integers(0, 5), st.data())
def test_poisson_disc_is_spread_and_full(most, seed, data):
    distance = data.draw(st.integers(1, most))
    t = spacing.poisson_disc(most, distance, seed)
    assert t[0] == most - 1 and t[-1] >= 0
    assert np.all(-np.diff(t) >= distance) and np.all(-np.diff(t) < 2 * distance) and t[-1] < distance
    np.testing.assert_array_equal(t, spacing.poisson_disc(most, distance, seed))


def test_align_your_steps_are_the_papers_and_those_between():
    ten = spacing.align_your_steps("stable_diffusion")
    np.testing.assert_allclose(ten[:3], [14.615, 6.475, 3.861])
    assert len(ten) == 11 and ten[-1] == 0
    twenty = spacing.align_your_steps("stable_diffusion", 20, end=0.029)
    np.testing.assert_allclose(twenty[::2][:10], ten[:10])
    assert np.all(np.diff(twenty) < 0) and twenty[-1] == 0.029
    with pytest.raises(ValueError, match="it knows stable_diffusion, "):
        spacing.align_your_steps("kandinsky")


def test_align_your_timesteps_are_the_papers_and_those_between():
    ten = spacing.align_your_timesteps("stable_diffusion_xl")
    np.testing.assert_array_equal(ten, [999, 845, 730, 587, 443, 310, 193, 116, 53, 13])
    many = spacing.align_your_timesteps("stable_diffusion_xl", 28)
    np.testing.assert_array_equal(many[::3], ten)
    assert np.all(np.diff(many) < 0) and np.all(many == np.round(many))
    for t in (many, spacing.poisson_disc(1000, 20)):
        np.testing.assert_array_equal(schedulers.DPMSolverMultistepScheduler().plan(timesteps=t).t, t)
    with pytest.raises(ValueError, match="it knows stable_diffusion, "):
        spacing.align_your_timesteps("stable_video_diffusion")


@pytest.mark.parity
def test_align_your_steps_against_diffusers():
    diffusers = pytest.importorskip("diffusers")
    names = {"stable_diffusion": "StableDiffusionSigmas", "stable_diffusion_xl": "StableDiffusionXLSigmas",
             "stable_video_diffusion": "StableDiffusionVideoSigmas"}
    for model, name in names.items():
        np.testing.assert_allclose(spacing.ALIGN_YOUR_STEPS[model][:-1],
                                   diffusers.schedulers.AysSchedules[name][:-1], rtol=1e-6)
    for model in spacing.ALIGN_YOUR_TIMESTEPS:
        wanted = diffusers.schedulers.AysSchedules[names[model].replace("Sigmas", "Timesteps")]
        np.testing.assert_array_equal(spacing.align_your_timesteps(model), wanted)
