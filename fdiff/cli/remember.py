"""How a picture of `fdiff generate` was drawn: the text that it carries, and `--like`, which reads it back."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fdiff import __version__
from fdiff.cli.checks import FILES
from fdiff.picture_text import Parameters, write
from fdiff.sources import is_single_file

# What is not part of how a picture is drawn, and so not kept: where it is written, and what is done beside.
NOT_KEPT = ("run", "like", "out", "animate", "preview", "save_plan", "any_memory")
ADAPTERS = ("lora", "textual_inversion", "ip_adapter")
MODELS = ("model", "controlnet", "image_encoder")

# What A1111's web UI calls samplers, and the schedulers that are the same.
SAMPLERS: Mapping[str, str] = {
    "Euler": "EulerDiscreteScheduler", "Euler a": "EulerAncestralDiscreteScheduler", "Heun": "HeunDiscreteScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler", "DPM++ SDE": "DPMSolverSDEScheduler", "DPM2": "KDPM2DiscreteScheduler",
    "DPM2 a": "KDPM2AncestralDiscreteScheduler", "LMS": "LMSDiscreteScheduler", "DDIM": "DDIMScheduler",
    "PLMS": "PNDMScheduler", "UniPC": "UniPCMultistepScheduler", "LCM": "LCMScheduler",
}  # fmt: skip


def pinned(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the commit of a repository of the Hub as its revision, so that all is of one, then and later.

    For errors see `fdiff.hub.fetch`.
    """
    from fdiff import hub
    from fdiff.pipelines.components import INDEX

    if arguments.model is None or is_single_file(arguments.model):
        return arguments
    place = hub.Source(arguments.model, None, arguments.revision)
    revision = hub.pinned(place, hub.fetch(place, INDEX)).revision
    return argparse.Namespace(**{**vars(arguments), "revision": revision})


def hashes(arguments: argparse.Namespace, names: Sequence[str] = (*MODELS, *ADAPTERS, *FILES)) -> dict[str, list[str]]:
    """The sha256 of every file that these options name, one for each time that an option is given."""
    return {name: [_hash(name, one, arguments) for one in listed(getattr(arguments, name))]
            for name in names if getattr(arguments, name) or name == "model"}  # fmt: skip


def listed(value: Any) -> list[Any]:
    """What an option is given, as a list also where it is given once."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _hash(name: str, source: Any, arguments: argparse.Namespace) -> str:
    from fdiff import manifest
    from fdiff.cli.sources import adapter_file
    from fdiff.pipelines.class_conditional import DEFAULT

    if name in FILES:
        return manifest.file_hash(source)
    if name in ADAPTERS:
        return manifest.file_hash(adapter_file(name, source))
    how = ("revision", "variant", "config") if name == "model" else ()
    where = {one: getattr(arguments, one) for one in how}
    return manifest.digest(manifest.read(source or DEFAULT, **where))


@dataclasses.dataclass(frozen=True)
class Told:
    """All that the text of a picture says; `size` is that of one picture, `hashes` as `hashes` gives them."""

    arguments: argparse.Namespace
    pipe: Any
    options: Mapping[str, Any]
    plan: Any
    size: tuple[int, int]
    hashes: Mapping[str, list[str]]

    def text(self, number: int | None) -> str:
        """The text of a sheet, or of the picture of that number."""
        words = [self.options.get("prompt"), *self._loras()]
        prompt = " ".join(word for word in words if word)
        return write(Parameters(prompt, self.options.get("negative_prompt") or "", self._fields(number), {
            "arguments": self._kept(), "hashes": dict(self.hashes), "number": number, "versions": versions(),
        }))  # fmt: skip

    def _kept(self) -> dict[str, Any]:
        """The options that were given, and how many pictures they meant."""
        from fdiff.cli.sources import count_of, is_default
        from fdiff.pipelines.class_conditional import DEFAULT

        given = {name: listed(value) if isinstance(value, tuple) else value
                 for name, value in vars(self.arguments).items() if name not in NOT_KEPT and value not in (None, ())}
        if is_default(self.arguments.model):  # by its name, as it was another one before
            given = {"model": DEFAULT.name, **given}
        return {**given, "num_images": count_of(self.arguments)}

    def _loras(self) -> list[str]:
        from fdiff.cli.sources import scaled

        pairs = [scaled("lora", one) for one in self.arguments.lora]
        return [f"<lora:{Path(source).stem}:{scale:g}>" for source, scale in pairs]

    def _fields(self, number: int | None) -> dict[str, str]:
        """The fields that other tools know, by the names that they know."""
        from fdiff.pipelines.class_conditional import DEFAULT

        arguments, scheduler = self.arguments, self.pipe.scheduler
        seed = arguments.seed if arguments.torch_seed is None else arguments.torch_seed
        fields = {
            "Steps": len(self.plan) if arguments.plan else self._option("num_inference_steps"),
            "Sampler": _sampler(scheduler),
            "Schedule type": "Karras" if getattr(scheduler, "use_karras_sigmas", False) else None,
            "CFG scale": self._option("guidance_scale"),
            "Seed": seed,
            "Size": "x".join(map(str, self.size)),
            "Model hash": self.hashes["model"][0][:10],
            "Model": _named(arguments.model or DEFAULT.name),
            "Class": self._classes(number),
            "Denoising strength": self._option("strength"),
            "Clip skip": self.options["clip_skip"] + 1 if self.options.get("clip_skip") else None,
            **self._added(),
            "Version": f"fdiff {__version__}",
        }
        return {name: f"{value:g}" if isinstance(value, float) else str(value)
                for name, value in fields.items() if value is not None}  # fmt: skip

    def _added(self) -> dict[str, str | None]:
        """What was added to the model, each with its hash."""
        from fdiff.cli.sources import given

        arguments = self.arguments

        def short(name: str) -> str | None:
            found = zip(listed(getattr(arguments, name) or ()), self.hashes.get(name, ()), strict=True)
            return ", ".join(f"{_named(given(one).source)}: {value[:12]}" for one, value in found) or None

        net = arguments.controlnet and (f"Module: none, Model: {_named(arguments.controlnet)} "
                                        f"[{self.hashes['controlnet'][0][:8]}], Weight: "
                                        f"{self._option('controlnet_conditioning_scale')}")
        return {"ControlNet 0": net, "IP-Adapter": short("ip_adapter"), "Lora hashes": short("lora"),
                "TI hashes": short("textual_inversion")}

    def _option(self, name: str) -> Any:
        """What an option of the call is, whether it was given or not; None where the pipeline has none such."""
        known = {one.name: one.default for one in self.pipe.steps.task.options}
        if name not in known:
            return None
        value = self.options.get(name, known[name])
        return getattr(self.pipe, name, None) if value is None else value

    def _classes(self, number: int | None) -> str | None:
        labels = self.options.get("class_labels")
        if labels is None:
            return None
        shown = labels if number is None else [labels[number]]
        return ", ".join(dict.fromkeys(str(label) for label in shown))


def versions() -> dict[str, str]:
    """Of what decides the bits of a picture beside the options."""
    import jax

    return {"fdiff": __version__, "jax": jax.__version__}


def _sampler(scheduler: Any) -> str:
    """What the web UI calls the scheduler, or its own name."""
    name = type(scheduler).__name__
    usual = getattr(scheduler, "algorithm_type", "dpmsolver++") == "dpmsolver++"
    return next((ui for ui, ours in SAMPLERS.items() if ours == name and usual), name)


def _named(source: str) -> str:
    """A Hub id as it is; a file or folder without where it lies."""
    path = Path(os.path.expanduser(source))
    if is_single_file(source):
        return path.stem
    return path.resolve().name if path.exists() else source
