"""What a pipeline does, as data: a request, the stages that make a run of it, and what comes of the run's end.

    class Text(Request):                              each option once, with its type, its default and its doc
        prompt: str | None = option(None, "what to draw")
        _: KW_ONLY
        guidance_scale: float = option(7.5, "how closely to keep to the prompt")

    def sized(vae: AutoencoderKL, height: int) -> Sized: ...        a stage: it takes what it names, and gives fields

    text_to_image = Task(Text, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text.")

    class StableDiffusionPipeline(DiffusionPipeline):
        vae: AutoencoderKL
        ...
        __call__, steps = text_to_image.methods()     pipe(params, "a cat", key=...), its signature that of the request

A stage is a function of what it names: components of the pipeline, options of the request, `params`, `pipe` itself, and
what earlier stages gave. It gives a NamedTuple, whose fields later stages name; one of the name of an option replaces
it. The last ones must have given `network`, `plan`, `x` and `draws`, or also `after` and `memory` (see
`fdiff.sampling.steps`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

import jax

from fdiff import sampling
from fdiff.bars import bar
from fdiff.caching import Cache, cached
from fdiff.pipelines.checks import check_finite
from fdiff.pipelines.draws import Seed
from fdiff.plan import Plan

P = ParamSpec("P")
T = TypeVar("T")
Out = TypeVar("Out")
Params = dict[str, Any]
Key = jax.Array | None
Stage = Callable[..., Any]


def option(default: T, doc: str = "", *, flag: str | None = "") -> T:
    """An option of a request: its default, and what it is; a class that overrides the default need not say it again.

    flag: what the command line calls it, where that is not its own name; None: it has no place there.
    """
    found: Any = dataclasses.field(default=default, metadata={"doc": doc, "flag": flag})
    return found


def needed(doc: str, *, flag: str = "") -> Any:
    """An option without a default."""
    return dataclasses.field(metadata={"doc": doc, "flag": flag})


@dataclasses.dataclass(frozen=True)
class Request:
    """What every pipeline can be asked: a frozen dataclass whose fields are `option`s, inherited by other requests."""

    _: KW_ONLY
    key: Key = option(None, "a JAX key, or one for each picture; picture i depends on its own key alone")
    torch_seed: Seed = option(
        None,
        "in place of a key, the numbers of torch.Generator('cpu').manual_seed(torch_seed), which give the picture that "
        "diffusers gives; or a seed for each picture, or generators of fdiff.torch_random. As in diffusers, pictures "
        "that are painted anew, or upscaled, from one picture share its first noise",
    )
    plan: Plan | None = option(None, "a table in place of the scheduler's own, such as scheduler.plan(20, eta=1.0)")
    output_type: str = option(
        "pil", "pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]; or latent, undecoded, where there are latents",
        flag=None,
    )
    progress: bool = option(True, "show a bar", flag=None)
    cache: Cache | None = option(
        None,
        "compute what is deep in the network at some steps only, a `fdiff.DeepCache`, `FirstBlockCache` or "
        "`TaylorSeer`; faster, and nearly the same",
    )


class Option(NamedTuple):
    """An option as a request has it; `kind` is its type as written, `flag` as the command line has it, None: not."""

    name: str
    kind: str
    default: Any
    doc: str
    flag: str | None


def options_of(request: Any) -> tuple[Option, ...]:
    """The options of a request class, those that need no name first, with the doc of the nearest class."""
    fields: Any = [cls.__dict__.get("__dataclass_fields__", {}) for cls in request.__mro__]

    def said(name: str, what: str, otherwise: str) -> Any:
        return next((each[name].metadata[what] for each in fields if name in each and each[name].metadata[what] != ""),
                    otherwise)

    return tuple(
        Option(field.name, str(field.type), field.default, said(field.name, "doc", ""),
               said(field.name, "flag", field.name.replace("_", "-")))
        for field in sorted(dataclasses.fields(request), key=lambda field: bool(field.kw_only))
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Run(sampling.Steps, Generic[Out]):
    """A run that is about to happen: `run` gives its output; iterating gives (state, x0) after each step, `len` steps.

    finish: checks what the output needs, before the first step, and gives the function that makes it of the last x.
    """

    finish: Callable[[], Callable[[jax.Array], Out]]
    progress: bool = True

    def run(self) -> Out:
        """Run to the end, behind a bar where asked, and make the output.

        Raises ValueError, after the first step or at the end, where the network gives values that are not finite.
        """
        output, last = self.finish(), len(self) - 1
        for i, (state, _) in enumerate(bar(self, disable=not self.progress, unit="step", leave=False)):
            if i in (0, last):
                check_finite(x := state.x)
            if self.progress:
                jax.block_until_ready(state.slots)
        return output(x)


@dataclasses.dataclass(frozen=True)
class Task(Generic[P, Out]):
    """What a pipeline does: see the module. `finish` is a function like a stage, and gives x -> output.

    `Callable[P, Request]` is the constructor of the request, from which type checkers know the options of a call.
    """

    request: Callable[P, Request]
    stages: tuple[Stage, ...]
    finish: Callable[..., Callable[[jax.Array], Out]]
    doc: str

    @property
    def options(self) -> tuple[Option, ...]:
        """The options of a call."""
        return options_of(self.request)

    def begin(self, pipe: Any, params: Params, asked: Request) -> Run[Out]:
        """The run of a request: every stage in turn.

        Raises what the stages raise, and ValueError for a stage that names what nobody gives.
        """
        held: dict[str, Any] = {**vars(pipe), **vars(asked), "pipe": pipe, "params": params}
        for stage in self.stages:
            held |= stage(**_taken(stage, held, pipe))._asdict()
        draws, finish = held["draws"], self.finish
        network, memory, plan, x = held["network"], held.get("memory"), held["plan"], held["x"]
        if asked.cache is not None:
            network, memory = cached(network, plan, x, asked.cache, memory)
        run = sampling.steps(
            network, plan, x, draws.key, noise=draws.noise, after=held.get("after"), memory=memory
        )  # fmt: skip
        return Run(**vars(run), finish=lambda: finish(**_taken(finish, held, pipe)), progress=asked.progress)

    def methods(
        self,
    ) -> tuple[Callable[Concatenate[Any, Params, P], Out], Callable[Concatenate[Any, Params, P], Run[Out]]]:
        """`__call__` and `steps` of a pipeline, whose signature and doc are those of the options."""

        def steps(self_: Any, params: Params, *args: P.args, **options: P.kwargs) -> Run[Out]:
            return self.begin(self_, params, self._asked(self_, *args, **options))

        def call(self_: Any, params: Params, *args: P.args, **options: P.kwargs) -> Out:
            return steps(self_, params, *args, **options).run()

        told = "\n".join(
            textwrap.fill(f"{one.name}: {one.doc}.", 112, initial_indent="    ", subsequent_indent=" " * 8)
            for one in self.options
        )
        args = f"\n\nArgs:\n    params: the parameters, by the names of the components.\n{told}\n"
        raises = "\nRaises ValueError for what does not fit the model or contradicts itself."
        _describe(call, "__call__", self, self.doc + args + raises)
        _describe(steps, "steps", self, "The same run to iterate over: (state, x0) after each step." + args + raises)
        return call, steps

    def _asked(self, pipe: Any, *args: P.args, **options: P.kwargs) -> Request:
        """The request. Raises TypeError, which names the nearest option, for one that there is not."""
        try:
            return self.request(*args, **options)
        except TypeError as error:
            raise TypeError(self._refusal(type(pipe).__name__, len(args), options) or str(error)) from None

    def _refusal(self, name: str, count: int, options: Mapping[str, Any]) -> str | None:
        known = [one.name for one in self.options]
        for wrong in options.keys() - set(known):
            near = difflib.get_close_matches(wrong, known, 1)
            return f"{name} has no option {wrong!r}" + (f"; did you mean {near[0]}?" if near else "; see help(pipe)")
        parameters = inspect.signature(self.request).parameters.values()
        places = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        if count > len(places):
            takes = f"{', '.join(places)} in that order" if places else "nothing"
            return f"{name} takes {takes} without names, and {count} are given; name the others"
        for twice in options.keys() & set(places[:count]):
            return f"{name} is given {twice} twice; name it once"
        for one in self.options:
            if one.default is dataclasses.MISSING and one.name not in {*places[:count], *options}:
                return f"{name} needs {one.name}: {one.doc}"
        return None


def _describe(function: Any, name: str, task: Task[Any, Any], doc: str) -> None:
    function.__name__, function.__qualname__, function.__doc__, function.task = name, name, doc, task
    signature = inspect.signature(task.request)
    first = [inspect.Parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in ("self", "params")]
    function.__signature__ = signature.replace(
        parameters=[*first, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )


@functools.cache
def _takes(function: Stage) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _taken(stage: Stage, held: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """What the stage names, of what is held; what nobody has keeps the stage's default.

    Raises ValueError for a name without one.
    """
    taken = {}
    for name, parameter in _takes(stage).items():
        if name in held:
            taken[name] = held[name]
        elif parameter.default is parameter.empty:
            raise ValueError(f"the stage {stage.__name__} takes {name!r}, which is no component of "
                             f"{type(pipe).__name__}, no option of its request, and not what an earlier stage gives")
    return taken

