"""The base of every scheduler: from scheduler_config.json to a plan, and the few things done by hand."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import hub, keys, noise, sampling, upload
from fdiff.plan import Plan
from fdiff.schedulers.options import choose, require

FILE = "scheduler_config.json"


class StepOutput(NamedTuple):
    """What a step by hand gives: the less noisy sample, the prediction of x0, and the state to go on from."""

    prev_sample: jax.Array
    pred_original_sample: jax.Array
    state: sampling.State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A frozen dataclass whose fields are the keys of scheduler_config.json; `plan` makes the table of a run.

    `others` keeps the options that belong to other schedulers, so that from_config can hand them on; `given` names
    the options that its own config spelt out. A scheduler of another class gets those, and whatever differs from
    its default here, and has its own defaults otherwise.
    """

    others: tuple[tuple[str, Any], ...] = ()
    given: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make lists and arrays tuples. Raises ValueError for an option that no scheduler can have."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        total = getattr(self, "num_train_timesteps", 1)
        require("num_train_timesteps", total, total >= 1, "a whole number of 1 or more")
        for name in ("shift", "flow_shift"):
            shift = getattr(self, name, 1)
            require(name, shift, shift > 0, "above 0")
        choose("time_shift_type", getattr(self, "time_shift_type", "linear"), ("exponential", "linear"))

    def plan(self, num_inference_steps: int | None = None) -> Plan:
        """The table of a run of that many steps; each scheduler documents further options."""
        raise NotImplementedError

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma), each shaped like t, at training timesteps t: x = alpha x0 + sigma eps."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str | Path | Scheduler, **options: Any) -> Self:
        """This scheduler from a dict, a scheduler_config.json or another scheduler; `options` go before them.

        Called on `Scheduler` itself, it is of the class that the config names, with or without a leading Flax.
        Options of other schedulers are kept but do nothing here. Raises ValueError for one that none knows.
        """
        if isinstance(config, Scheduler):
            config = config._spelt_out()
        elif isinstance(config, str | Path):
            config = hub.read_json(Path(config))
        if cls is Scheduler:
            return find_scheduler(config.get("_class_name")).from_config(config, **options)  # type: ignore[return-value]
        given = {k: v for k, v in {**config, **options}.items() if not k.startswith("_")}
        given = {_RENAMED.get(k, k): v for k, v in given.items()}
        if given.pop("predict_epsilon", True) is False:
            given.setdefault("prediction_type", "sample")
        fields = {field.name for field in _options(cls)}
        unknown = set(given) - fields - _known_options()
        if unknown:
            raise ValueError(f"no scheduler has the option {sorted(unknown)[0]!r}; "
                             f"remove it from {FILE} or correct its name")
        others = tuple(sorted((k, v) for k, v in given.items() if k not in fields))
        own = {k: v for k, v in given.items() if k in fields}
        return cls(others=others, given=tuple(own), **own)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """This scheduler from scheduler_config.json in a Hub id or a folder, or in its `scheduler` folder."""
        config = hub.load_config(
            source, FILE, subfolder=subfolder, fallback_subfolder="scheduler", revision=revision,
            cache_dir=cache_dir, token=token, local_files_only=local_files_only, force_download=force_download,
        )
        return cls.from_config(config)

    def to_config(self) -> dict[str, Any]:
        """The dict that scheduler_config.json holds."""
        own = {field.name: getattr(self, field.name) for field in _options(type(self))}
        return {"_class_name": type(self).__name__, **dict(self.others), **own}

    def _spelt_out(self) -> dict[str, Any]:
        """to_config without the options that are what they are by default alone."""
        silent = {field.name for field in _options(type(self))
                  if field.name not in self.given and getattr(self, field.name) == field.default}
        return {name: value for name, value in self.to_config().items() if name not in silent}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write scheduler_config.json into the folder."""
        with hub.staged(folder) as temporary:
            hub.write_json(temporary / FILE, self.to_config())

    def push_to_hub(self, repo_id: str, *, token: str | None = None, private: bool = False) -> str:
        """Upload scheduler_config.json to a Hub repository, made if need be; returns its address."""
        return upload.push(self.save_pretrained, repo_id, token=token, private=private)

    def step(
        self,
        model_output: jax.Array,
        t: jax.Array | int | float,
        sample: jax.Array | sampling.State,
        key: jax.Array | None = None,
        *,
        num_inference_steps: int | None = None,
        noise: jax.Array | None = None,
    ) -> StepOutput:
        """One step by hand, from timestep t to the next one of a run of num_inference_steps (default: all).

        The network's input is `sample * row.c_in`, see Plan. Schedulers that remember earlier steps, or visit
        a timestep twice, take the `state` of the step before in place of the sample.

        Raises ValueError where t is not a timestep of the run, noise is needed and neither key nor noise is
        given, or a state is needed.
        """
        if num_inference_steps is None and "num_train_timesteps" not in {field.name for field in _options(type(self))}:
            raise ValueError(f"a step of {type(self).__name__} needs num_inference_steps, that of the run")
        table = _plan_of(self, num_inference_steps)
        if isinstance(sample, sampling.State):
            state = sample
        else:
            state = sampling.init(table, sample)._replace(done=_find(table, t, type(self).__name__))
        if noise is None and np.any(table.from_noise):
            if key is None:
                raise ValueError("this scheduler draws noise: pass a key or the noise to step")
            noise = keys.normal(key, state.x.shape)
        return _advance(table, state, model_output, jnp.float32(0) if noise is None else noise)

    def add_noise(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """x = alpha x0 + sigma noise at training timesteps t, a number or (b,)."""
        alpha, sigma = (broadcast(level, x0) for level in self.levels(t))
        return alpha * x0 + sigma * noise

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """v = (alpha noise - sigma x0) / sqrt(alpha^2 + sigma^2) (Salimans & Ho 2022), of v_prediction."""
        alpha, sigma = (broadcast(level, x0) for level in self.levels(t))
        return (alpha * noise - sigma * x0) / jnp.sqrt(alpha**2 + sigma**2)


def find_scheduler(name: str | None) -> type[Scheduler]:
    """The scheduler class of that Hub name, old spellings such as FlaxPNDMScheduler included.

    Raises ValueError for none.
    """
    from fdiff import schedulers

    found = getattr(schedulers, (name or "").removeprefix("Flax"), None)
    if not (isinstance(found, type) and issubclass(found, Scheduler)) or found is Scheduler:
        raise ValueError(f"fdiff has no scheduler {name!r}; correct _class_name in {FILE} to one of fdiff.schedulers")
    return found


_RENAMED = {"set_alpha_to_zero": "set_alpha_to_one", "lower_order_finals": "lower_order_final"}
_OLD = {"dtype", "tensor_format", "predict_epsilon", "timestep_values", "timesteps"}


def _options(cls: type[Scheduler]) -> list[dataclasses.Field[Any]]:
    """The fields that are options of the Hub."""
    return [field for field in dataclasses.fields(cls) if field.name not in ("others", "given")]


def _known_options() -> set[str]:
    """The options of all schedulers, and those of old versions that have no effect any more."""
    return {field.name for cls in Scheduler.__subclasses__() for field in _options(cls)} | _OLD


def _frozen(value: Any) -> Any:
    value = value.tolist() if isinstance(value, np.ndarray | np.generic | jax.Array) else value
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value, hashable. Raises ValueError unless it is a number where the field's type is one."""
    value, kind = _frozen(value), str(field.type)
    whole = kind.startswith("int")
    if not kind.startswith(("int", "float")) or (kind.endswith("| None") and value is None):
        return value
    if whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{field.name} is {value!r}; it must be a {'whole ' if whole else ''}number")
    return value


@jax.jit
def _advance(table: Plan, state: sampling.State, out: jax.Array, noise: jax.Array) -> StepOutput:
    row = table.map(lambda leaf: jnp.asarray(leaf)[state.done])
    x0, _ = sampling.predict(row, state.x, out)
    state = sampling.step(row, state, out, noise)
    return StepOutput(state.x, x0, state)


@functools.lru_cache(maxsize=32)
def _plan_of(scheduler: Scheduler, n: int | None) -> Plan:
    return scheduler.plan(getattr(scheduler, "num_train_timesteps", None) if n is None else n)


def _find(table: Plan, t: Any, name: str) -> jax.Array:
    """The row at timestep t, which one must be able to enter without memory."""
    repeated = len(np.unique(table.t)) < len(table)
    if isinstance(t, jax.core.Tracer):
        if table.slots > 1 or repeated:
            raise ValueError(f"{name} remembers earlier steps: pass the state of the step before, "
                             "or fdiff.init(plan, x), as the sample")
        return jnp.argmin(jnp.abs(jnp.asarray(table.t) - t))
    found = np.flatnonzero(np.abs(table.t - float(t)) < 1e-3)
    if not len(found):
        raise ValueError(f"{t} is not a timestep of this run of {name}; see plan.t")
    if (table.slots > 1 or repeated) and found[0] > 0:
        raise ValueError(f"{name} remembers earlier steps: pass the state of the step before as the sample")
    return jnp.int32(found[0])


def broadcast(level: jax.Array, x: jax.Array) -> jax.Array:
    """The level, a number or (b,), with as many axes as x and its dtype."""
    level = jnp.asarray(level, x.dtype)
    return level.reshape(level.shape + (1,) * (x.ndim - level.ndim)) if level.ndim else level


@functools.lru_cache(maxsize=64)
def signal(scheduler: Any) -> np.ndarray:
    """alpha^2 (T,) at each training timestep, float64, down to 0 where rescale_betas_zero_snr is set."""
    betas = noise.betas(
        scheduler.beta_schedule, scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end,
        scheduler.trained_betas,
    )
    if getattr(scheduler, "rescale_betas_zero_snr", False):
        betas = noise.zero_terminal_snr(betas)
    return noise.alphas_cumprod(betas)


def preserving_levels(scheduler: Any, t: Any) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma) at integer training timesteps t, alpha^2 + sigma^2 = 1."""
    return levels_at(signal(scheduler), t)


def levels_at(alpha2: np.ndarray, t: Any) -> tuple[jax.Array, jax.Array]:
    """The same from alpha^2 (T,) itself."""
    t = jnp.asarray(t, jnp.int32)
    return jnp.asarray(np.sqrt(alpha2), jnp.float32)[t], jnp.asarray(np.sqrt(1 - alpha2), jnp.float32)[t]
