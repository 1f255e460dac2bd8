"""Run a case with diffusers, and with fdiff, over the same starting sample, noise and network."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import fdiff.schedulers
from tests.schedulers.cases import Case

SHAPE = (2, 3, 3, 4)


def hub_classes() -> list[Any]:
    """Every scheduler class of the Hub, by name; not the bases that they share."""
    found = {getattr(fdiff.schedulers, name) for name in fdiff.schedulers.__all__ if name.endswith("Scheduler")}
    return sorted(found - {fdiff.schedulers.Scheduler}, key=lambda cls: cls.__name__)


def network(x: np.ndarray, channels: int = 1) -> np.ndarray:
    """A tame nonlinear network in NumPy, so that both sides call the very same one."""
    mix = np.random.default_rng(3).normal(size=(SHAPE[-1], SHAPE[-1])) * 0.4
    out = 0.8 * x + 0.2 * np.tanh(x @ mix)
    return np.concatenate([out, np.tanh(x @ mix.T)], -1) if channels == 2 else out


def called(case: Case, x: np.ndarray, t: float) -> np.ndarray:
    """The network as this case calls it."""
    return -network(x / np.hypot(1, t)) if case.level_in_t else network(x, case.channels)


def draws(n: int) -> np.ndarray:
    """Row 0 is the starting sample, the others are the noise of n network calls."""
    return np.random.default_rng(7).normal(size=(n + 1, *SHAPE)).astype(np.float32)


def run_diffusers(case: Case) -> dict[str, np.ndarray]:
    """Timesteps, the starting deviation and the last sample by diffusers, channels second as it has them."""
    import importlib
    import unittest.mock

    import torch

    options = dict(case.set_timesteps)
    if case.steps is not None:
        options["num_inference_steps"] = case.steps
    scheduler = diffusers_class(case.scheduler).from_config(dict(case.config))
    scheduler.set_timesteps(**options)
    timesteps = scheduler.timesteps.numpy()
    dtype = torch.float64 if case.double else torch.float32
    start, *noise = draws(len(timesteps))
    with contextlib.ExitStack() as stack:
        if case.double:
            stack.enter_context(double_precision())
            scheduler = diffusers_class(case.scheduler).from_config(dict(case.config))
            scheduler.set_timesteps(**options)
            if timesteps.dtype.kind == "f":  # whole ones have lost their fraction to float32 already
                timesteps = scheduler.timesteps.numpy()
        if hasattr(scheduler, "_step_index"):
            scheduler._step_index = 0  # it would begin at the second of two equal timesteps

        def tensor(array: np.ndarray) -> Any:
            return torch.tensor(np.moveaxis(array, -1, 1)).to(dtype)

        def network_at(x: Any, t: Any) -> Any:
            seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            told = float(t if np.ndim(t) == 0 else t[0])
            return tensor(called(case, np.moveaxis(seen.numpy(), 1, -1).astype(np.float64), told))

        if case.scheduler == "SCMScheduler":  # as its pipelines do
            scheduler.init_noise_sigma = scheduler.config.sigma_data
        deviation = float(getattr(scheduler, "init_noise_sigma", 1.0))
        x, memory = tensor(start) * deviation, {"tensor": tensor, "draws": []}
        module = importlib.import_module(type(scheduler).__module__)
        for i, fresh in enumerate(noise):
            memory["noise"] = tensor(fresh)
            with unittest.mock.patch.object(module, "randn_tensor", lambda *a, **k: draw(memory), create=True):
                memory["draws"].append(0)
                x = LOOPS.get(case.scheduler, plain_step)(case, scheduler, network_at, i, x, memory)
    last, told = np.moveaxis(x.numpy(), 1, -1).astype(np.float32), np.asarray(memory.get("told", timesteps))
    return {"timesteps": told, "start": np.float64(deviation), "x": last, "draws": np.array(memory["draws"], np.uint8)}


def draw(memory: dict[str, Any]) -> Any:
    """This step's noise, drawn once more."""
    memory["draws"][-1] += 1
    return memory["noise"]


def plain_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step of diffusers as nearly every class takes it."""
    t = scheduler.timesteps[i]
    return scheduler.step(network_at(x, t), t, x, **case.step).prev_sample


def brownian_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of a class that draws a Brownian path in sigma: our draws, in place of torchsde's."""
    if i == 0:
        scheduler.noise_sampler = BrownianPath(memory)
    return plain_step(case, scheduler, network_at, i, x, memory)


class BrownianPath:
    """W(sigma) from high sigma to low, where each new level takes the current draw for its increment."""

    def __init__(self, memory: dict[str, Any]):
        self.memory, self.known = memory, []

    def __call__(self, sigma: Any, sigma_to: Any) -> Any:
        """W(sigma_to) - W(sigma), divided by the root of the distance."""
        high, low = float(sigma), float(sigma_to)
        begin = self.at(high)
        return (self.at(low) - begin) / (high - low) ** 0.5

    def at(self, sigma: float) -> Any:
        for level, value in self.known:
            if abs(level - sigma) <= 1e-5 * level:
                return value
        level, value = self.known[-1] if self.known else (sigma, 0 * self.memory["noise"])
        self.known.append((sigma, value + (level - sigma) ** 0.5 * self.memory["noise"]))
        return self.known[-1][1]


def ipndm_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """diffusers loses x0 where alpha is 0, and starts there: start a hair's breadth beside it."""
    if i == 0 and scheduler.alphas[0] == 0:
        scheduler.betas[0] = 1 - 1e-14
        scheduler.alphas[0] = (1 - scheduler.betas[0] ** 2) ** 0.5
    return plain_step(case, scheduler, network_at, i, x, memory)


def scm_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step; the last timestep is where the run ends, and no step leaves from it."""
    memory["told"] = scheduler.timesteps.numpy()[:-1]
    return plain_step(case, scheduler, network_at, i, x, memory) if i < len(memory["told"]) else x


def karras_ve_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step of the pipeline that this class had, at the levels whose squares it lays; three rows in fdiff."""
    import torch

    levels = scheduler.schedule.flip(0) ** 0.5
    sigma, sigma_to = levels[i], levels[i + 1] if i + 1 < len(levels) else torch.tensor(0.0)
    memory["noise"] = torch.tensor(np.moveaxis(draws(3 * i + 1)[-1], -1, 1))
    with drawing(scheduler, memory["noise"]):
        x_hat, hat = scheduler.add_noise_to_input(x, sigma)
    moved = scheduler.step(network_at(x_hat, hat), hat, sigma_to, x_hat)
    memory["told"] = memory.get("told", []) + [float(hat), float(hat), float(sigma_to)][: 3 if sigma_to else 2]
    if sigma_to == 0:
        return moved.prev_sample
    out = network_at(moved.prev_sample, sigma_to)
    return scheduler.step_correct(out, hat, sigma_to, x_hat, moved.prev_sample, moved.derivative).prev_sample


def score_sde_vp_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step, of which the last gives its mean."""
    t = scheduler.timesteps[i]
    return scheduler.step_pred(network_at(x, t), x, t)[i + 1 == len(scheduler.timesteps)]


def score_sde_ve_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step of its pipeline: corrections, then the prediction, of which the last gives its mean."""
    import torch

    n, calls = len(scheduler.timesteps), scheduler.config.correct_steps + 1
    if i == 0:
        scheduler.set_sigmas(n)
        memory["told"] = scheduler.sigmas.numpy()
    sigma, noise = scheduler.sigmas[i], torch.tensor(np.moveaxis(draws((i + 1) * calls)[-calls:], -1, 2))
    for k in range(calls - 1):
        with drawing(scheduler, noise[k]):
            x = scheduler.step_correct(-network_at(x / sigma, sigma) / sigma, x).prev_sample
    with drawing(scheduler, noise[-1]):
        out = scheduler.step_pred(-network_at(x / sigma, sigma) / sigma, scheduler.timesteps[i], x)
    return out.prev_sample if i + 1 < n else out.prev_sample_mean


def drawing(scheduler: Any, noise: Any) -> Any:
    """A context in which the scheduler draws this noise."""
    import sys
    import unittest.mock

    return unittest.mock.patch.object(sys.modules[type(scheduler).__module__], "randn_tensor", lambda *a, **k: noise)


def previous_timestep_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of UnCLIP, which is told the next timestep, as its pipeline does."""
    t, last = scheduler.timesteps[i], i + 1 == len(scheduler.timesteps)
    before = None if last else scheduler.timesteps[i + 1]
    return scheduler.step(network_at(x, t), t, x, prev_timestep=before, **case.step).prev_sample


def wuerstchen_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of a class that wants its timestep as a tensor, and whose last timestep is no step."""
    memory["told"] = scheduler.timesteps.numpy()[:-1]
    if i == len(memory["told"]):
        return x
    t = scheduler.timesteps[i].expand(len(x))
    return scheduler.step(network_at(x, t), t, x, **case.step).prev_sample


def cogvideox_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of CogVideoXDPM, which is told the last x0 and timestep, as its pipeline does."""
    t, back = scheduler.timesteps[i], scheduler.timesteps[i - 1] if i else None
    x, memory["x0"] = scheduler.step(network_at(x, t), memory.get("x0"), t, back, x, **case.step)
    return x


def repaint_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of RePaint's pipeline: one down, or one back up."""
    t = scheduler.timesteps[i]
    if i and t > scheduler.timesteps[i - 1]:
        return scheduler.undo_step(x, scheduler.timesteps[i - 1])
    known, mask = (memory["tensor"](array) for array in known_part())
    return scheduler.step(network_at(x, t), t, x, known, mask, **case.step).prev_sample


def known_part() -> tuple[np.ndarray, np.ndarray]:
    """A picture and the mask of what is known of it, for RePaint."""
    rng = np.random.default_rng(5)
    return rng.uniform(-1, 1, SHAPE).astype(np.float32), (rng.uniform(size=SHAPE) < 0.5).astype(np.float32)


def ltx_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """One step; of given sigmas the last is where the run ends, which diffusers tells no network."""
    memory["told"] = scheduler.timesteps.numpy()[: scheduler.num_inference_steps]
    return plain_step(case, scheduler, network_at, i, x, memory) if i < len(memory["told"]) else x


def piflow_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of a class whose network gives n_grid velocities, all equal here, with the channels last."""
    t = scheduler.timesteps[i]
    out = network_at(x, t).movedim(1, -1).repeat(1, 1, 1, scheduler.n_grid)
    return scheduler.step(out, t, x.movedim(1, -1)).prev_sample.movedim(-1, 1)


def proteina_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of a class for tokens, one row of a picture here, none of them known."""
    import torch

    t, tokens = scheduler.timesteps[i], x.movedim(1, -1).flatten(1, 2)
    memory["noise"] = memory["noise"].movedim(1, -1).flatten(1, 2)
    out, mask = network_at(x, t).movedim(1, -1).flatten(1, 2), torch.ones(tokens.shape[:2], dtype=torch.bool)
    moved = scheduler.step(out, t, tokens, mask).prev_sample
    return moved.unflatten(1, SHAPE[1:3]).movedim(-1, 1)


def helios_dmd_step(case: Case, scheduler: Any, network_at: Any, i: int, x: Any, memory: dict[str, Any]) -> Any:
    """The step of HeliosDMD, which is told the stage's first x, as its pipeline does."""
    told, out, film = scheduler.timesteps, network_at(x, scheduler.timesteps[i]), x[:, :, None]
    first = memory.setdefault("first", film)
    return scheduler.step(out[:, :, None], told[i], film, cur_sampling_step=i, dmd_noisy_tensor=first,
                          dmd_sigmas=scheduler.sigmas, dmd_timesteps=told, all_timesteps=told).prev_sample[:, :, 0]


# Classes whose step wants more than (output, timestep, sample): the same arguments as plain_step.
LOOPS: dict[str, Any] = {
    "CogVideoXDPMScheduler": cogvideox_step,
    "CosineDPMSolverMultistepScheduler": brownian_step,
    "DDPMWuerstchenScheduler": wuerstchen_step,
    "DPMSolverSDEScheduler": brownian_step,
    "HeliosDMDScheduler": helios_dmd_step,
    "IPNDMScheduler": ipndm_step,
    "KarrasVeScheduler": karras_ve_step,
    "LTXEulerAncestralRFScheduler": ltx_step,
    "PiflowScheduler": piflow_step,
    "RFD4ProteinaScheduler": proteina_step,
    "RePaintScheduler": repaint_step,
    "SCMScheduler": scm_step,
    "ScoreSdeVeScheduler": score_sde_ve_step,
    "ScoreSdeVpScheduler": score_sde_vp_step,
    "UnCLIPScheduler": previous_timestep_step,
}


def diffusers_class(name: str) -> Any:
    """A scheduler class of diffusers; those that want torchsde come without it, since its draws are replaced."""
    import importlib
    import sys
    import types

    import diffusers

    hidden = {
        "ConsistencyDecoderScheduler": "scheduling_consistency_decoder",
        "DPMSolverSDEScheduler": "scheduling_dpmsolver_sde",
        "CosineDPMSolverMultistepScheduler": "scheduling_cosine_dpmsolver_multistep",
        "KarrasVeScheduler": "deprecated.scheduling_karras_ve",
        "ScoreSdeVpScheduler": "deprecated.scheduling_sde_vp",
    }
    if name not in hidden:
        return getattr(diffusers, name)
    sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
    return getattr(importlib.import_module(f"diffusers.schedulers.{hidden[name]}"), name)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """diffusers in float64: what it means to compute, without its cancellation in 1 - alphas_cumprod."""
    import unittest.mock

    import torch

    single = torch.float32
    with unittest.mock.patch.object(torch, "float32", torch.float64), \
            unittest.mock.patch.object(np, "float32", np.float64):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(single)


def run_fdiff(case: Case) -> dict[str, np.ndarray]:
    """The same by fdiff's table, row by row."""
    import jax

    from fdiff import sampling

    scheduler = getattr(fdiff.schedulers, case.scheduler).from_config(case.config)
    plan = scheduler.plan(case.steps, **case.plan)
    drawn = plan.draws
    plan = plan.pad(slots=max(plan.slots, 6))  # so that nearly all cases share one compilation
    if case.scheduler == "ScoreSdeVeScheduler":
        last = run_score_sde_ve(scheduler, case.steps)
        return {"timesteps": plan.t, "start": np.float64(plan.start), "x": last, "draws": drawn}
    start, *noise = draws(len(plan))
    state, after = sampling.init(plan, start * plan.start), None
    if case.scheduler == "RePaintScheduler":
        after = fdiff.schedulers.keep_known(plan, *known_part(), noise=np.stack(noise))
    advance = jax.jit(sampling.step)
    for i, fresh in enumerate(noise):
        row = plan[i]
        out = called(case, np.asarray(state.x, np.float64) * row.c_in, float(row.t)).astype(np.float32)
        state = advance(row, state, out, fresh)
        state = state if after is None else state._replace(slots=state.slots.at[0].set(after(state.x, i)))
    return {"timesteps": plan.t, "start": np.float64(plan.start), "x": np.asarray(state.x), "draws": drawn}


DRAW_OTHERWISE = {  # Brownian paths of torchsde, and loops of their own
    "DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler",
}


def run_score_sde_ve(scheduler: Any, n: int) -> np.ndarray:
    """The loop of its own that this class has, over the same network made a score."""
    import jax

    def on_host(x: Any) -> Any:
        return network(np.asarray(x, np.float64)).astype(np.float32)

    def score(x: Any, sigma: Any) -> Any:
        return -jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, np.float32), x / sigma) / sigma

    start, *noise = draws(n * (scheduler.correct_steps + 1))
    noise = np.reshape(noise, (n, scheduler.correct_steps + 1, *SHAPE))
    return np.asarray(scheduler.sample(score, start * scheduler.sigma_max, num_inference_steps=n, noise=noise))


def assert_equal(
    case: Case, got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = 1e-5
) -> None:
    """Timesteps exactly (to float32), how often noise is drawn exactly, samples to 1e-5 of the largest value."""
    if case.scheduler not in DRAW_OTHERWISE:
        np.testing.assert_array_equal(got["draws"], wanted["draws"][: len(got["draws"])])
        assert not wanted["draws"][len(got["draws"]) :].any()
    np.testing.assert_allclose(got["timesteps"], wanted["timesteps"], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(got["start"], wanted["start"], rtol=1e-5)
    np.testing.assert_allclose(got["x"], wanted["x"], rtol=0, atol=tolerance * np.abs(wanted["x"]).max())
