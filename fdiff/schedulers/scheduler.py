"""The base of every scheduler: from scheduler_config.json to a plan, and the few things done by hand."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import hub, keys, registry, sampling, upload
from fdiff.messages import show
from fdiff.plan import PREDICTIONS, Grid, Pair, Plan, Solver, tabulate
from fdiff.schedulers.fields import check, frozen, hints
from fdiff.schedulers.level import Level, broadcast

FILE = "scheduler_config.json"


class StepOutput(NamedTuple):
    """What a step by hand gives: the less noisy sample, the prediction of x0, and the state to go on from."""

    prev_sample: jax.Array
    pred_original_sample: jax.Array
    state: sampling.State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduler(hub.Pretrained):
    """A frozen dataclass whose fields are the keys of scheduler_config.json; `plan` makes the table of a run.

    `others` keeps the options that belong to other schedulers, so that from_config can hand them on; `given` names
    the options that its own config spelt out. A scheduler of another class gets those, and whatever differs from
    its default here, and has its own defaults otherwise.
    """

    others: tuple[tuple[str, Any], ...] = ()
    given: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make lists and arrays tuples. Raises ValueError for an option that no scheduler can have."""
        cls: Any = type(self)
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            value = frozen(value) if name in ("others", "given") else check(name, value, hints(cls)[name])
            object.__setattr__(self, name, value)
        for name, value in self.others:
            _plain(name, value)
        low, high = (getattr(self, f"sigma_{end}", None) for end in ("min", "max"))
        if low is not None and high is not None and low >= high:
            raise ValueError(f"sigma_min is {low:g} and sigma_max is {high:g}; the first must be below the second")

    def plan(self, num_inference_steps: int | None = None) -> Plan:
        """The table of a run of that many steps; each scheduler documents further options."""
        raise NotImplementedError

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma), each shaped like t, at training times t: x = alpha x0 + sigma eps."""
        raise NotImplementedError

    def level(self, t: Any) -> Level:
        """What x is at training times t, what the network sees and is told of it, and how its output is read.

        t, a number or an array, is as the network is told it unless `levels` says otherwise. Training draws from these
        levels and `plan` lays rows of them. Raises ValueError where a network of this kind has no such level.
        """
        alpha, sigma = self.levels(t)
        told = self._told(jnp.asarray(t, jnp.float32))
        x0_of, eps_of = (jnp.stack(jnp.broadcast_arrays(*pair, alpha)[:2], -1) for pair in self._reads(alpha, sigma))
        return Level(alpha, sigma, jnp.broadcast_to(self._c_in(alpha, sigma), alpha.shape), x0_of, eps_of, told)

    def times(self, share: jax.Array) -> jax.Array:
        """The training times at these shares of the way from data, 0, to noise, 1: arguments of `level`.

        share: of any shape, in (0, 1]. Shares that are drawn evenly give the times that sampling visits.
        """
        total = getattr(self, "num_train_timesteps", 1)
        return jnp.clip(jnp.ceil(total * share).astype(jnp.int32) - 1, 0, total - 1)

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        """(x0_of, eps_of) at levels, numbers or arrays, NumPy's or JAX's: by prediction_type, if there is one."""
        kind = getattr(self, "prediction_type", "flow_prediction")
        if kind not in PREDICTIONS:
            raise ValueError(f"prediction_type is {kind!r}; it can be {', '.join(PREDICTIONS)}")
        return PREDICTIONS[kind](alpha, sigma)

    def _c_in(self, alpha: Any, sigma: Any) -> Any:
        """The scale of what the network sees."""
        return 1.0

    def _told(self, t: Any) -> Any:
        """What the network is told of training times t."""
        return t

    def _tabulate(self, solver: Solver, grid: Grid, *, called: np.ndarray | float = 1.0, **options: Any) -> Plan:
        """The table over these rows, each a level; `called` is 0 for those without a network call."""
        return tabulate(solver, grid, self._reads, c_in=self._c_in(grid.alpha, grid.sigma) * called, **options)

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
        if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
            raise ValueError(f"a scheduler's config is {show(config)}; it must hold options by their names")
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
    def from_source(cls, place: hub.Source) -> Self:
        """This scheduler from scheduler_config.json there, or in its `scheduler` folder."""
        return cls.from_config(hub.read_json(hub.fetch(place, FILE, f"scheduler/{FILE}")))

    def to_config(self) -> dict[str, Any]:
        """The dict that scheduler_config.json holds, its options by name."""
        own = {field.name: getattr(self, field.name) for field in _options(type(self))}
        return {"_class_name": type(self).__name__, **dict(sorted({**dict(self.others), **own}.items()))}

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
    found = registry.lookup(name, Scheduler)
    if found is None:
        raise ValueError(f"fdiff has no scheduler {name!r}; correct _class_name in {FILE} to one of fdiff.schedulers")
    return found


def named_scheduler(name: str) -> type[Scheduler]:
    """The scheduler class that a person means: EulerDiscreteScheduler, eulerdiscrete, Euler, UniPC.

    "Scheduler" may be left out, and Discrete, Multistep and the like where one class is left. Raises ValueError,
    which names near ones, for none or several.
    """
    known, asked = dict(registry.known(Scheduler)), name.lower().removesuffix("scheduler")
    short = {full: full.lower().removesuffix("scheduler") for full in known}
    found = [full for full, words in short.items() if words == asked]
    found = found or [full for full, words in short.items() if words in {asked + kind for kind in _KINDS}]
    if len(found) == 1:
        return known[found[0]]
    near = found or sorted(known, key=lambda full: -difflib.SequenceMatcher(None, asked, short[full]).ratio())[:3]
    many = "is several" if found else "is none"
    raise ValueError(f"scheduler {show(name)} {many} of fdiff's; choose {' or '.join(near)}, or see fdiff.schedulers")


_KINDS = ("discrete", "multistep", "singlestep")
_RENAMED = {"set_alpha_to_zero": "set_alpha_to_one", "lower_order_finals": "lower_order_final"}
_OLD = {"dtype", "tensor_format", "predict_epsilon", "timestep_values", "timesteps"}


def _options(cls: type[Scheduler]) -> list[dataclasses.Field[Any]]:
    """The fields that are options of the Hub."""
    return [field for field in dataclasses.fields(cls) if field.name not in ("others", "given")]


def _known_options() -> set[str]:
    """The options of all schedulers, other packages' too, and those of old versions that have no effect any more."""
    return {field.name for cls in _below(Scheduler) for field in _options(cls)} | _OLD


def _below(cls: type[Scheduler]) -> Iterator[type[Scheduler]]:
    """All classes derived from this one, however far down."""
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


def _plain(name: str, value: Any) -> None:
    """Raise ValueError unless the value is what a config holds, so that a scheduler is hashable."""
    if isinstance(value, tuple):
        for one in value:
            _plain(name, one)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{name} is {show(value)}; it must be a number, a word, true, false, null or a list of them")


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
