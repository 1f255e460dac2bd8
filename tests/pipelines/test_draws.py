"""With torch_seed a run draws what diffusers draws, also what it drops."""

import numpy as np

import fdiff
from fdiff.pipelines.draws import Wanted, draw_as_asked
from fdiff.torch_random import CPUGenerator, channels_last

SHAPE = (2, 4, 4, 1)


def test_noise_that_is_dropped_is_drawn_all_the_same():
    plan = fdiff.SASolverScheduler().plan(6)  # tau is 1 from timestep 200 to 800, and 0 elsewhere
    used = plan.from_noise.any(-1)
    assert not used[0] and used[2] and not used[-1]
    generator, same = CPUGenerator(3), CPUGenerator(3)
    draws = draw_as_asked(None, generator, plan, SHAPE, "float32", Wanted(SHAPE[1:]))
    first, *rows = (channels_last(same, SHAPE) for _ in range(7))
    np.testing.assert_array_equal(draws.arrays[0], first)
    np.testing.assert_array_equal(draws.noise, np.where(used[:, None, None, None, None], rows, 0))
    np.testing.assert_array_equal(generator.randn(16), same.randn(16))  # what a next run begins with


def test_of_two_draws_in_a_row_the_last_is_the_noise():
    plan = fdiff.CogVideoXDPMScheduler().plan(3)
    draws, same = draw_as_asked(None, 3, plan, SHAPE, "float32"), CPUGenerator(3)
    drawn = [channels_last(same, SHAPE) for _ in range(3)]
    np.testing.assert_array_equal(draws.noise[:2], [drawn[0], drawn[2]])


def test_no_noise_is_asked_for_without_eta():
    assert not fdiff.LTXEulerAncestralRFScheduler(eta=0.0).plan(20).from_noise.any()
