"""A tiny network trained on the unit circle by `denoising_loss`, and what each scheduler then draws from it."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdiff
from fdiff import schedulers, training
from fdiff.schedulers import Level, Scheduler

HIDDEN, BATCH, COUNT = (48, 48, 48), 256, 512
ROWS, SLOTS = 250, 6  # of every plan, so that all of one network are one compilation


def init(key):
    """Weights and biases of the layers, from (x, y) and seven features of the time to two numbers."""
    sizes = (2 + 7, *HIDDEN, 2)
    keys = jax.random.split(key, len(HIDDEN) + 1)
    return [(jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b))
            for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]


def perceptron(params, x, u):
    """x (b, 2) and times u within about [-1, 1] to (b, 2)."""
    u = jnp.broadcast_to(u, x.shape[:1])[:, None]
    waves = [wave(2**k * jnp.pi / 2 * u) for k in range(3) for wave in (jnp.sin, jnp.cos)]
    x = jnp.concatenate([x, u, *waves], -1)
    for weight, bias in params[:-1]:
        x = jax.nn.silu(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def from_to(low, high):
    """Networks that are told times between these."""
    return lambda params, x, t: perceptron(params, x, 2 * (t - low) / (high - low) - 1)


def of_sigma(params, x, sigma, power=0):
    """Networks that see x as it is, are told sigma and say -eps / sigma^power."""
    sigma = jnp.broadcast_to(sigma, x.shape[:1])[:, None]
    return -perceptron(params, x / jnp.hypot(sigma, 0.7), jnp.log(sigma[:, 0]) / 4) / sigma**power


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a network is trained for: with which scheduler's levels, what it is, and how its error is weighed."""

    scheduler: Scheduler
    network: Callable[..., jax.Array]
    weight: Callable[[Level], jax.Array] | None = None


WHOLE = from_to(0, 1000)
MEANINGS = {
    "epsilon": Meaning(schedulers.DDIMScheduler(), WHOLE),
    "sample": Meaning(schedulers.DDIMScheduler(prediction_type="sample"), WHOLE),
    "v_prediction": Meaning(schedulers.DDIMScheduler(prediction_type="v_prediction"), WHOLE),
    "cosine betas": Meaning(schedulers.UnCLIPScheduler(), WHOLE),
    "shifted betas": Meaning(schedulers.CogVideoXDDIMScheduler(), WHOLE),
    "decoder": Meaning(schedulers.ConsistencyDecoderScheduler(), WHOLE),
    "consistency": Meaning(schedulers.CMStochasticIterativeScheduler(), from_to(-1554, 1096)),
    "edm": Meaning(schedulers.EDMEulerScheduler(), from_to(-1.6, 1.1)),
    "arctan": Meaning(schedulers.CosineDPMSolverMultistepScheduler(sigma_min=0.02, sigma_max=50.0), from_to(0, 1)),
    "log sigma": Meaning(schedulers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
                         from_to(-1.2, 1.3)),
    "flow": Meaning(schedulers.FlowMatchEulerDiscreteScheduler(), WHOLE),
    "time to the data": Meaning(schedulers.MiniMaxH3Scheduler(), from_to(0, 1)),
    "trigflow": Meaning(schedulers.SCMScheduler(), from_to(0, 1.57)),
    "cosine": Meaning(schedulers.IPNDMScheduler(), from_to(0, 1)),
    "wuerstchen": Meaning(schedulers.DDPMWuerstchenScheduler(), from_to(0, 1)),
    "vp sde": Meaning(schedulers.ScoreSdeVpScheduler(), from_to(0, 1)),
    "ve sde": Meaning(schedulers.ScoreSdeVeScheduler(sigma_max=50.0), partial(of_sigma, power=1),
                      lambda level: level.sigma**2),
    "ve": Meaning(schedulers.KarrasVeScheduler(), of_sigma),
}


def train(names: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Averaged parameters for each of these meanings, all trained at once."""
    params = {name: init(jax.random.key(list(MEANINGS).index(name))) for name in names}
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    def loss(params, x0, key):
        return sum(training.denoising_loss(jax.tree_util.Partial(MEANINGS[name].network, params[name]),
                                           MEANINGS[name].scheduler, x0, key, weight=MEANINGS[name].weight)
                   for name in names)

    @partial(jax.jit, donate_argnums=0)
    def run(state, key):
        def body(state, i):
            key_x, key_loss = jax.random.split(jax.random.fold_in(key, i))
            angle = 2 * jnp.pi * jax.random.uniform(key_x, (BATCH,))
            circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
            decays = (training.warmed(0.99),)
            return training.train_step(state, circle, key_loss, loss=loss, optimizer=optimizer, decays=decays)

        return jax.lax.scan(body, state, jnp.arange(steps))[0]

    return run(training.init(params, optimizer), jax.random.key(0)).average


BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
DECODER = {"timesteps": tuple(range(1008, 0, -24))}
# Of every class that draws: the meaning of its network, its options and those of its run.
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{f"{name}Scheduler": ("epsilon", {}, {}) for name in (
        "DDIM", "DDPM", "PNDM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep",
        "SASolver", "EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", "FullOrderMultistep")},
    **{f"{name}Scheduler": ("epsilon", BETAS, {}) for name in (
        "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE", "LCM", "TCD")},
    "RePaintScheduler": ("epsilon", {"eta": 1.0}, {"jump_length": 5, "jump_n_sample": 2}),
    "UnCLIPScheduler": ("cosine betas", {}, {}),
    "CogVideoXDDIMScheduler": ("shifted betas", {}, {}),
    "CogVideoXDPMScheduler": ("shifted betas", {}, {"num_inference_steps": 100}),
    "ConsistencyDecoderScheduler": ("decoder", {}, {"num_inference_steps": None, **DECODER}),
    "CMStochasticIterativeScheduler": ("consistency", {}, {"num_inference_steps": 40}),
    "EDMEulerScheduler": ("edm", {}, {}),
    "EDMDPMSolverMultistepScheduler": ("edm", {}, {}),
    "CosineDPMSolverMultistepScheduler": ("arctan", {"sigma_min": 0.02, "sigma_max": 50.0}, {}),
    **{f"{name}Scheduler": ("flow", {}, {}) for name in (
        "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM", "FlowMapEulerDiscrete",
        "LTXEulerAncestralRF", "Piflow")},
    **{f"{name}Scheduler": ("flow", {"stages": 1}, {}) for name in ("Helios", "HeliosDMD")},
    "MiniMaxH3Scheduler": ("time to the data", {"shift": 3.0}, {}),
    "RFD4ProteinaScheduler": ("time to the data", {}, {"num_inference_steps": 100}),
    "SCMScheduler": ("trigflow", {}, {}),
    "IPNDMScheduler": ("cosine", {}, {}),
    "DDPMWuerstchenScheduler": ("wuerstchen", {}, {"num_inference_steps": 100}),
    "ScoreSdeVpScheduler": ("vp sde", {}, {"num_inference_steps": 200}),
    "ScoreSdeVeScheduler": ("ve sde", {"sigma_max": 50.0}, {"num_inference_steps": 200}),
    "KarrasVeScheduler": ("ve", {}, {}),
}
# More options of the same classes.
OPTIONS = [
    ("DDIMScheduler", "sample", {"prediction_type": "sample"}),
    ("DDIMScheduler", "v_prediction", {"prediction_type": "v_prediction"}),
    ("EulerDiscreteScheduler", "sample", {"prediction_type": "sample"}),
    ("EulerDiscreteScheduler", "v_prediction", {"prediction_type": "v_prediction"}),
    ("EulerDiscreteScheduler", "epsilon", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", "log sigma", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
    ("UniPCMultistepScheduler", "v_prediction", {"prediction_type": "v_prediction"}),
    ("UniPCMultistepScheduler", "flow", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    ("FlowMatchEulerDiscreteScheduler", "flow", {"shift": 3.0}),
]
UPWARDS = ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler")  # from data to noise, with epsilon's network


def network_for(scheduler: Scheduler, plan: fdiff.Plan, network: Any) -> Any:
    """The network as this scheduler's runs want it."""
    if isinstance(scheduler, schedulers.FlowMapEulerDiscreteScheduler):
        return scheduler.adapt(lambda x, t, r: network(x, t), plan)
    if isinstance(scheduler, schedulers.PiflowScheduler):
        return scheduler.adapt(lambda x, t: jnp.tile(network(x, t), scheduler.n_grid), plan)
    return network


def drawn(scheduler: Scheduler, meaning: str, params: Any, options: dict[str, Any], x: Any = None) -> np.ndarray:
    """Points (512, 2) of a run of 50 steps, or as the options say; from noise unless x is given."""
    plan = scheduler.plan(**{"num_inference_steps": 50, **options}).pad(ROWS, SLOTS)
    network = network_for(scheduler, plan, jax.tree_util.Partial(MEANINGS[meaning].network, params[meaning]))
    if x is None:
        x = plan.start * np.random.default_rng(1).normal(size=(COUNT, 2)).astype(np.float32)
    return np.asarray(fdiff.sample(network, plan, x, jax.random.key(2)))
