import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdiff import noise

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "exp", "sigmoid"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(2, 1000), st.floats(1e-5, 1e-3), st.floats(5e-3, 0.05))
def test_signal_falls_from_step_to_step(schedule, n, start, end):
    betas = noise.betas(schedule, n, start, end)
    assert betas.shape == (n,) and betas.dtype == np.float64
    assert np.all(betas > 0) and np.all(betas < 1)
    assert np.all(np.diff(noise.alphas_cumprod(betas)) < 0)


def test_trained_betas_go_before_all():
    np.testing.assert_array_equal(noise.betas("no such", 3, 0, 1, [0.1, 0.2, 0.3]), [0.1, 0.2, 0.3])


def test_an_unknown_schedule_is_one_sentence():
    with pytest.raises(ValueError, match="beta_schedule is 'cubic'; it can be linear"):
        noise.betas("cubic", 10, 0.1, 0.2)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["linear", "scaled_linear", "sigmoid"]), st.integers(10, 1000))
def test_zero_terminal_snr_ends_in_noise_and_keeps_the_beginning(schedule, n):
    betas = noise.betas(schedule, n, 1e-4, 0.02)
    signal, rescaled = noise.alphas_cumprod(betas), noise.alphas_cumprod(noise.zero_terminal_snr(betas))
    assert rescaled[-1] == 0 and rescaled[0] == pytest.approx(signal[0])
    assert np.all(np.diff(rescaled) < 0)


@pytest.mark.parity
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_against_diffusers(schedule):
    diffusers = pytest.importorskip("diffusers")
    others = [diffusers.DDPMScheduler, diffusers.HeunDiscreteScheduler]
    other = others[schedule == "exp"](beta_schedule=schedule, beta_start=1e-4, beta_end=0.02)
    betas = noise.betas(schedule, 1000, 1e-4, 0.02)
    np.testing.assert_allclose(betas, other.betas.numpy(), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(noise.alphas_cumprod(betas), other.alphas_cumprod.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parity
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_zero_terminal_snr_against_diffusers(schedule):
    diffusers = pytest.importorskip("diffusers")
    other = diffusers.DDIMScheduler(beta_schedule=schedule, rescale_betas_zero_snr=True)
    rescaled = noise.alphas_cumprod(noise.zero_terminal_snr(noise.betas(schedule, 1000, 1e-4, 0.02)))
    np.testing.assert_allclose(rescaled, other.alphas_cumprod.numpy(), rtol=1e-5, atol=1e-6)
