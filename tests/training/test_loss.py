"""Training asks a network what sampling asks it: rows of plans are levels, and a ring that was learned is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import schedulers, training
from tests.schedulers.runs import hub_classes
from tests.training import rings

QUICK = ("epsilon", "edm", "flow")
CASES = [*((name, *case) for name, case in rings.RUNS.items()),
         *((name, meaning, config, {}) for name, meaning, config in rings.OPTIONS)]


def test_every_class_is_drawn_from():
    of_molecules = {"PolynomialScheduler", "AnnealedLangevinScheduler"}  # which the tests of molecules draw from
    assert set(rings.RUNS) | set(rings.UPWARDS) | of_molecules == {cls.__name__ for cls in hub_classes()}
    assert {meaning for _, meaning, _, _ in CASES} == set(rings.MEANINGS)


def optimized(names, steps):
    jax.config.update("jax_disable_most_optimizations", False)  # it runs long
    yield rings.train(names, steps)
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def quick():
    yield from optimized(QUICK, 1500)


@pytest.fixture(scope="module")
def others():
    yield from optimized(tuple(name for name in rings.MEANINGS if name not in QUICK), 3000)


def assert_a_ring(params, name, meaning, config, options):
    points = rings.drawn(getattr(schedulers, name)(**config), meaning, params, options)
    radius, angle = np.hypot(*points.T), np.arctan2(*points.T)
    assert abs(radius.mean() - 1) < 0.1 and radius.std() < 0.15, (radius.mean(), radius.std())
    assert np.abs(np.exp(1j * angle).mean()) < 0.3, "all around"


@pytest.mark.parametrize(("name", "meaning", "config", "options"), [case for case in CASES if case[1] in QUICK])
def test_a_learned_ring_is_drawn(quick, name, meaning, config, options):
    assert_a_ring(quick, name, meaning, config, options)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "meaning", "config", "options"), [case for case in CASES if case[1] not in QUICK])
def test_a_learned_ring_is_drawn_by_the_others(others, name, meaning, config, options):
    assert_a_ring(others, name, meaning, config, options)


@pytest.mark.parametrize("name", rings.UPWARDS)
def test_an_inversion_makes_a_learned_ring_noise(quick, name):
    angle = np.linspace(0, 2 * np.pi, rings.COUNT, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    noise = rings.drawn(getattr(schedulers, name)(), "epsilon", quick, {}, circle)
    np.testing.assert_allclose(noise.std(0), 1, atol=0.3)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.15)


STEPS = {"ConsistencyDecoderScheduler": 2, "RFD4ProteinaScheduler": 20, "SCMScheduler": 2}
ONE_STAGE = {"HeliosScheduler": {"stages": 1}, "HeliosDMDScheduler": {"stages": 1}}
# What diffusers, and so the plan, tells a network at another level than that of its training: a level between two
# timesteps by its logarithm (all within 2 %), and the score's level by a time that ends at sampling_eps.
TOLERANCE = {"KDPM2DiscreteScheduler": 0.02, "KDPM2AncestralDiscreteScheduler": 0.02, "DPMSolverSDEScheduler": 0.02,
             "FullOrderMultistepScheduler": 0.004, "ScoreSdeVeScheduler": 3e-4}
EVERY = [cls for cls in hub_classes() if cls.__name__ != "DDIMInverseScheduler"]  # which is told where it goes


KINDS = [(cls, {"prediction_type": kind}) for cls, kind in (
    (schedulers.DDIMScheduler, "sample"),
    (schedulers.EulerDiscreteScheduler, "v_prediction"),
    (schedulers.EulerDiscreteScheduler, "original_sample"),
    (schedulers.UniPCMultistepScheduler, "v_prediction"),
    (schedulers.EDMEulerScheduler, "v_prediction"),
    (schedulers.HeliosScheduler, "v_prediction"),
)]


@pytest.mark.parametrize(("cls", "options"), [*((cls, {}) for cls in EVERY), *KINDS])
def test_rows_of_a_plan_are_levels(cls, options):
    scheduler = cls(**options, **ONE_STAGE.get(cls.__name__, {}))
    plan = scheduler.plan(STEPS.get(cls.__name__, 8))
    rows = plan[np.resize(np.flatnonzero(plan.c_in), 32)]  # as many for each class, so that they share compilations
    t = rows.t
    if cls is schedulers.ScoreSdeVeScheduler:  # whose times number the levels, and the network is told sigma
        t = (scheduler.num_train_timesteps - 1) * np.log(t / scheduler.sigma_min) / \
            np.log(scheduler.sigma_max / scheduler.sigma_min)
    level, tolerance = scheduler.level(t), TOLERANCE.get(cls.__name__, 1e-4)
    for name in ("alpha", "sigma", "c_in", "x0_of", "eps_of"):
        found, wanted = getattr(level, name), getattr(rows, name)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance / 20, err_msg=name)
    np.testing.assert_allclose(level.told, rows.t, rtol=tolerance, atol=1e-6)
    x0, noise = np.random.default_rng(0).normal(size=(2, len(t), 3)).astype(np.float32)
    said = level.target(x0, noise)
    x = level.noisy(x0, noise)
    flow_v = cls is schedulers.HeliosScheduler and options  # of which diffusers reads another eps
    for of, wanted in ((level.x0_of, x0), *[(level.eps_of, noise)][: not flow_v]):
        size = 1 + np.abs(of[:, 1:])  # what an output that is rounded to float32 can be off by
        np.testing.assert_allclose((of[:, :1] * x + of[:, 1:] * said) / size, wanted / size, atol=1e-4)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_times_are_those_that_sampling_visits(cls):
    scheduler = cls(**ONE_STAGE.get(cls.__name__, {}))
    t = np.asarray(scheduler.times(jnp.linspace(1e-6, 1, 4096)))
    assert t.shape == (4096,)
    t = np.resize([t.min(), t.max()], 32)
    options = rings.RUNS[cls.__name__][2] if cls.__name__ in rings.RUNS else {}
    plan = scheduler.plan(**{"num_inference_steps": STEPS.get(cls.__name__, 40), **options})
    called, level = plan.c_in != 0, scheduler.level(t)
    low, high = (np.sort(np.asarray(angle)) for angle in (
        np.arctan2(level.sigma, level.alpha), np.arctan2(plan.sigma[called], plan.alpha[called])))
    assert low[-1] == pytest.approx(high[-1], rel=0.02), "the most noise"
    stays = cls is schedulers.CMStochasticIterativeScheduler  # at its lowest level, whatever is said there
    assert 0 < low[0] <= high[int(stays)] * 1.1, "the least noise"
    assert np.isfinite(level.x0_of).all() and np.isfinite(level.target(jnp.ones((32, 3)), jnp.ones((32, 3)))).all()


def test_what_cannot_be_trained_is_one_sentence():
    x0, key = jnp.ones((4, 2)), jax.random.key(0)
    with pytest.raises(ValueError, match="stages is 3; only a flow of one stage"):
        training.denoising_loss(lambda x, t: x, schedulers.HeliosScheduler(), x0, key)
    zero = schedulers.DDIMScheduler(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="cannot start from alpha = 0"):
        training.denoising_loss(lambda x, t: x, zero, x0, key)
    with pytest.raises(ValueError, match=r"the network returned shape \(4, 1\) for samples of shape \(4, 2\)"):
        training.denoising_loss(lambda x, t: x[:, :1], schedulers.DDIMScheduler(), x0, key)


def test_the_error_is_that_of_the_output_weighed_as_asked():
    scheduler, x0, key = schedulers.EDMEulerScheduler(), jnp.ones((64, 2)), jax.random.key(0)
    seen = []

    def network(x, t):
        seen.append((x, t))
        return jnp.zeros_like(x)

    plain = training.denoising_loss(network, scheduler, x0, key)
    sigma = jnp.exp(4 * seen[0][1])
    weighed = training.denoising_loss(network, scheduler, x0, key, weight=lambda level: 2 + 0 * level.sigma)
    np.testing.assert_allclose(weighed, 2 * plain, rtol=1e-6)
    # EDM (Karras et al. 2022, eq. 8): the network's target is (x0 - c_skip x) / c_out, and it sees x / sqrt(s^2 + d^2)
    x = seen[0][0] * jnp.hypot(sigma, 0.5)[:, None]
    skip, out = (part[:, None] for part in (0.25 / (sigma**2 + 0.25), sigma * 0.5 / jnp.hypot(sigma, 0.5)))
    np.testing.assert_allclose(plain, jnp.mean(((x0 - skip * x) / out) ** 2), rtol=1e-4)


PREDICTED = [(schedulers.DDIMScheduler(), lambda snr, out: min(snr, 5) / snr),
             (schedulers.DDIMScheduler(prediction_type="sample"), lambda snr, out: min(snr, 5)),
             (schedulers.DDIMScheduler(prediction_type="v_prediction"), lambda snr, out: min(snr, 5) / (snr + 1)),
             (schedulers.FlowMatchEulerDiscreteScheduler(), lambda snr, out: min(snr, 5) / (1 + snr**0.5) ** 2)]


@pytest.mark.parametrize(("scheduler", "wanted"), PREDICTED)
def test_min_snr_is_what_the_paper_gives_for_each_prediction(scheduler, wanted):
    level = scheduler.level(scheduler.times(jnp.linspace(0.01, 0.99, 50)))
    snr = np.asarray(level.alpha / level.sigma, np.float64) ** 2
    np.testing.assert_allclose(training.min_snr(5.0)(level), [wanted(one, level) for one in snr], rtol=1e-3)


def test_p2_weighs_the_error_of_noise():
    level = schedulers.DDIMScheduler().level(jnp.arange(0, 1000, 50))
    snr = (level.alpha / level.sigma) ** 2
    np.testing.assert_allclose(training.p2(0.5, 2.0)(level), (2 + snr) ** -0.5, rtol=1e-5)
    as_v = schedulers.DDIMScheduler(prediction_type="v_prediction").level(jnp.arange(0, 1000, 50))
    np.testing.assert_allclose(training.p2()(as_v), as_v.alpha**2 / (1 + snr), rtol=1e-4)


def test_shares_have_the_distributions_that_they_are_named_for():
    key, count = jax.random.key(0), 20_000
    for shares, cdf in ((training.uniform, lambda s: s),
                        (training.logit_normal(-0.5, 0.8), lambda s: jax.scipy.stats.norm.cdf(
                            (jnp.log(s / (1 - s)) + 0.5) / 0.8))):
        drawn = np.sort(np.asarray(shares(key, (count,))))
        assert drawn[0] > 0 and drawn[-1] <= 1
        assert np.abs(np.asarray(cdf(drawn)) - np.arange(count) / count).max() < 0.02  # Kolmogorov and Smirnov
    strata = np.sort(np.asarray(training.stratified(key, (64,))))
    np.testing.assert_array_equal(np.ceil(strata * 64 - 1e-4), np.arange(1, 65))


def test_noise_that_is_added_is_what_it_is_called():
    x0, key = jnp.zeros((64, 16, 16, 3)), jax.random.key(0)
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler()

    def seen(**options):
        kept = []
        training.denoising_loss(lambda x, t: kept.append(x / t[:, None, None, None] * 1000) or x, scheduler, x0, key,
                                **options)
        return np.asarray(kept[0])

    plain = seen()
    offset = seen(offset_noise=0.5) - plain
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1, :1], offset.shape), atol=1e-4)
    assert offset[:, 0, 0].std() == pytest.approx(0.5, rel=0.2)
    more = seen(input_noise=0.1) - plain
    assert more.std() == pytest.approx(0.1, rel=0.05)
    perfect = [training.denoising_loss(lambda x, t: x / t[:, None, None, None] * 1000, scheduler, x0, key, **options)
               for options in ({"offset_noise": 0.5}, {"input_noise": 0.1})]
    assert perfect[0] < 1e-8, "offset noise is to be predicted"
    assert perfect[1] == pytest.approx(0.01, rel=0.05), "input noise is not"


def test_a_share_of_the_conditions_is_withheld():
    told = {"text": jnp.ones((1000, 4, 2)), "label": jnp.arange(1000) + 5}
    given = training.withhold(jax.random.key(0), 0.25, told, {"text": jnp.zeros((4, 2)), "label": jnp.int32(0)})
    dropped = np.asarray(given["label"]) == 0
    assert 200 < dropped.sum() < 300
    np.testing.assert_array_equal(np.asarray(given["text"]).max((1, 2)) == 0, dropped)
    np.testing.assert_array_equal(given["label"][~dropped], told["label"][~dropped])
