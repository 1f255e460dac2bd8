"""The `fdiff` command: generate, inspect, plot-scheduler, convert."""

from __future__ import annotations

import argparse
import inspect as introspection
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
EXAMPLES = """examples:
  fdiff generate --out digits.png                      the model that fdiff ships: a sheet of digits
  fdiff generate --class 7 --num-images 16 --animate sevens.gif
  fdiff generate google/ddpm-cat-256 --steps 50 --scheduler DDIMScheduler --out cats.png
  fdiff inspect google/ddpm-cat-256
  fdiff plot-scheduler EulerDiscreteScheduler DPMSolverMultistepScheduler --out schedulers.png
  fdiff convert google/ddpm-cat-256 cat --dtype bfloat16
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"fdiff: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fdiff: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of every command."""
    top = argparse.ArgumentParser(
        prog="fdiff", description="Diffusion models in JAX.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, description: str, examples: list[str]) -> argparse.ArgumentParser:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        added = commands.add_parser(
            name, help=description, description=description, epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    add = command("generate", generate, "Make pictures with a pretrained model.", [
        line.strip() for line in EXAMPLES.splitlines() if line.startswith("  fdiff generate")
    ]).add_argument
    add("model", nargs="?", metavar="MODEL", help="a Hub id or a folder (default: the digits that fdiff ships)")
    add("prompt", nargs="?", metavar="PROMPT", help="what to draw, for models that read text")
    add("--class", dest="classes", metavar="CLASS", help="classes by number or name, with commas: 7 or cat,dog")
    add("--seed", type=int, default=0, help="image i of a seed is the same whatever else is drawn (default: 0)")
    add("--num-images", type=int, metavar="N", help="how many pictures (default: 1; 100 of the digits)")
    add("--steps", type=int, metavar="N", help="network calls (default: what suits the model)")
    add("--scheduler", metavar="NAME", help="such as EulerDiscreteScheduler (default: the model's own)")
    add("--guidance-scale", type=float, metavar="G", help="how closely to keep to class or prompt; 1 is none")
    add("--dtype", choices=DTYPES, default="float32", help="what to compute in (default: float32)")
    add("--out", default="fdiff.png", help="a sheet of all pictures as .png, or a folder for one file each")
    add("--animate", metavar="GIF", help="also write the denoising as a .gif")

    examples = ["fdiff inspect google/ddpm-cat-256"]
    add = command("inspect", inspect, "Show what a model consists of.", examples).add_argument
    add("model", metavar="MODEL", help="a Hub id or a folder")

    add = command("plot-scheduler", plot_scheduler, "Draw timesteps, noise levels and coefficients of schedulers.", [
        "fdiff plot-scheduler DDIMScheduler EulerDiscreteScheduler --steps 20 --out schedulers.png",
        "fdiff plot-scheduler ./model/scheduler",
    ]).add_argument
    add("schedulers", nargs="+", metavar="SCHEDULER", help="class names, Hub ids or folders")
    add("--steps", type=int, default=20, metavar="N", help="of the run to draw (default: 20)")
    add("--out", default="schedulers.png", help="the picture to write (default: schedulers.png)")

    add = command("convert", convert, "Write a model in the Hub's layout of today, as safetensors.", [
        "fdiff convert google/ddpm-cat-256 cat --dtype bfloat16",
    ]).add_argument
    add("model", metavar="MODEL", help="a Hub id or a folder, its weights .safetensors or .bin")
    add("out", metavar="FOLDER", help="the folder to write")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights written (default: float32)")
    add("--variant", help="read these weights, such as fp16")
    return top


def generate(arguments: argparse.Namespace) -> None:
    """Make pictures, a sheet or a folder of them, and an animation if asked."""
    from fdiff import images

    sheet = bool(Path(arguments.out).suffix)
    if sheet:
        images.picture_format(arguments.out)
    if arguments.animate and Path(arguments.animate).suffix.lower() != ".gif":
        raise ValueError(f"--animate writes a GIF; call {arguments.animate} something.gif")
    for name in ("num_images", "steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more")
    pipe, params = _load(arguments)
    run = pipe.steps(params, **_call_options(pipe, arguments))
    frames, x = [], run.x
    for state, x0 in _bar(run):
        x = state.x
        if arguments.animate:
            frames.append(images.grid([images.enlarge(image, 32) for image in _decode(pipe, params, x0)]))
    drawn = [images.enlarge(image, 32) for image in _decode(pipe, params, x)]
    if sheet:
        images.save(images.grid(drawn, columns=10 if len(drawn) == 100 else None), arguments.out)
    else:
        images.save_all(drawn, arguments.out)
    if arguments.animate:
        images.save_animation(frames, arguments.animate)
    print(f"wrote {arguments.out}" + (f" and {arguments.animate}" if arguments.animate else ""))


def _load(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The pipeline asked for, with its scheduler swapped if asked, and its parameters."""
    import fdiff

    source = arguments.model or fdiff.pipelines.DIGITS
    pipe: Any
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(source, dtype=arguments.dtype)
    if arguments.scheduler:
        pipe = pipe.replace(scheduler=_scheduler_class(arguments.scheduler).from_config(pipe.scheduler))
    return pipe, params


def _call_options(pipe: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of this pipeline's `steps`. Raises ValueError for an option that it does not have."""
    import jax

    known = introspection.signature(pipe.steps).parameters
    count = arguments.num_images or (1 if arguments.model else 100)
    asked = {
        "class_labels": arguments.classes and arguments.classes.split(","),
        "prompt": arguments.prompt,
        "num_inference_steps": arguments.steps,
        "guidance_scale": arguments.guidance_scale,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    flags = {
        "class_labels": "--class",
        "prompt": "PROMPT",
        "num_inference_steps": "--steps",
        "guidance_scale": "--guidance-scale",
    }
    for name in options:
        if name not in known:
            raise ValueError(f"{flags[name]} means nothing to a {type(pipe).__name__}; leave it out")
    if "prompt" in known and not arguments.prompt:
        raise ValueError(f"{arguments.model} draws what a text says; add a PROMPT in quotes after it")
    if "class_labels" in known:
        classes = options.get("class_labels") or list(range(pipe.unet.num_class_embeds - 1))
        options["class_labels"] = [classes[i % len(classes)] for i in range(count)]
    else:
        options["num_images_per_prompt" if "prompt" in known else "batch_size"] = count
    return {"key": jax.random.key(arguments.seed), **options}


def _decode(pipe: Any, params: Any, x: Any) -> list[Any]:
    """PIL images of what the sampler carries, which some pipelines keep in a latent space."""
    from fdiff import images

    return images.to_pil(pipe.decode(params, x) if hasattr(pipe, "decode") else x)


def _bar(run: Any) -> Any:
    from tqdm import tqdm

    return tqdm(run, unit="step", desc="denoising")


def inspect(arguments: argparse.Namespace) -> None:
    """Print components, parameters, dtypes and the scheduler of a model, its weights unread."""
    from fdiff.summary import summary

    print(summary(arguments.model))


def plot_scheduler(arguments: argparse.Namespace) -> None:
    """Draw the schedulers named into one picture."""
    from fdiff import images
    from fdiff.plotting import draw_schedulers

    images.picture_format(arguments.out)
    named = {name: _scheduler(name) for name in arguments.schedulers}
    images.save(draw_schedulers(named, arguments.steps), arguments.out)
    print(f"wrote {arguments.out}")


def _scheduler(name: str) -> Any:
    """A scheduler from a class name, a Hub id, a folder or a scheduler_config.json."""
    from fdiff import schedulers

    if "/" in name or Path(name).exists():
        return schedulers.Scheduler.from_pretrained(name)
    return _scheduler_class(name)()


def _scheduler_class(name: str) -> Any:
    """The scheduler class of that name, with or without "Scheduler". Raises ValueError, naming near ones."""
    import difflib

    from fdiff import schedulers

    names = [known for known in schedulers.__all__ if known.endswith("Scheduler") and known != "Scheduler"]
    for known in names:
        if name.lower() in (known.lower(), known.removesuffix("Scheduler").lower()):
            return getattr(schedulers, known)
    near = sorted(names, key=lambda known: -difflib.SequenceMatcher(None, name, known[: len(name)]).ratio())[:3]
    raise ValueError(f"fdiff has no scheduler {name!r}; it has {', '.join(near)} and others, see fdiff.schedulers")


def convert(arguments: argparse.Namespace) -> None:
    """Write a model or a pipeline anew as safetensors in the Hub's layout."""
    from fdiff.conversion import convert_repository

    convert_repository(arguments.model, arguments.out, dtype=arguments.dtype, variant=arguments.variant)
    print(f"wrote {arguments.out}")
