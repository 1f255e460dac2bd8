"""The `fdiff` command: generate, train, evaluate, inspect, list, plot-scheduler, convert, completion.

What a command needs is imported when it runs, after what can be known to be wrong: JAX takes a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fdiff import __version__, hub
from fdiff.cli.checks import check_task, plain
from fdiff.cli.flags import TYPES, flags, tasks
from fdiff.cli.list import KINDS
from fdiff.cli.options import DTYPES, QUANTIZED, add_generate, add_inspect, add_train

EXAMPLES = """examples:
  fdiff generate --out digits.png                      the model that fdiff ships: a sheet of digits
  fdiff generate --class 7 --num-images 16 --animate sevens.gif
  fdiff generate google/ddpm-cat-256 --steps 50 --scheduler DDIMScheduler --out cats.png
  fdiff generate stable-diffusion-v1-5/stable-diffusion-v1-5 "a squirrel in Picasso style" --out squirrel.png
  fdiff train class-conditional --data pictures --output mine --steps 5000
  fdiff inspect google/ddpm-cat-256
  fdiff plot-scheduler EulerDiscreteScheduler DPMSolverMultistepScheduler --out schedulers.png
  fdiff convert google/ddpm-cat-256 cat --dtype bfloat16
  fdiff convert v1-5-pruned.safetensors sd15 --tokenizer openai/clip-vit-large-patch14
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for bad input, 130 when interrupted, 143 when terminated."""
    if argv is None:
        keep_compiled()
    known = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell that asks what may come next, see `completion`
        import argcomplete

        argcomplete.autocomplete(known)
    try:
        arguments = _parsed(known, sys.argv[1:] if argv is None else argv)
        with _terminated_like_interrupted():
            arguments.run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # who read has seen enough, as with `fdiff list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, which Windows does not name
    except (ValueError, OSError) as error:
        print(f"fdiff: {_sentence(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:  # of NumPy and of XLA, that memory ran out
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        said = plain(str(error)).removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        print(f"fdiff: there is too little memory ({said}); ask for less, fewer at a time or smaller", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"fdiff: {plain(stop.args[1]) if stop.args[1:] else 'interrupted; nothing was written'}", file=sys.stderr)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    return 0


def _parsed(known: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; a word that argparse leaves over, since options stand before it, is the PROMPT if there is none.

    argparse settles all words that may be left out at the first one that stands alone, so PROMPT would be none.
    """
    if argv[:1] == ["train"] and len(argv) > 1 and not argv[1].startswith("-"):
        check_task(argv[1])
    arguments, left = known.parse_known_args(argv)
    free = getattr(arguments, "model", None) is not None and getattr(arguments, "prompt", "") is None
    if free and len(left) == 1 and not left[0].startswith("-"):
        arguments.prompt = left[0]
    elif left:
        known.error(f"unrecognized arguments: {' '.join(left)}")
    return arguments


def _sentence(error: Exception) -> str:
    """What an error says, in a line, with the options as they are typed."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:  # of the system
        return plain(f"{error.filename} cannot be used ({error.strerror}); choose another name or place")
    settings = {name for task in tasks().values() for name in task["settings"]}
    typed = {name: f"--{name.replace('_', '-')}" for name in settings}
    typed |= {name.replace("-", "_"): f"--{name}" for name in flags()} | {"mask_image": "--mask"}
    said = re.sub(r"^(\w+)(?= is | must | \d)", lambda found: typed.get(found[1], found[1]), str(error))
    for python, here in (("num_inference_steps", "--steps"), ("pass tokenizer=...", "add --tokenizer"),
                         ("pass config=", "add --config")):  # fmt: skip
        said = said.replace(python, here)
    return plain(said)


def keep_compiled() -> None:
    """Let JAX keep what it compiles in the user's cache folder, so that the next run starts sooner.

    JAX_COMPILATION_CACHE_DIR names another folder, and where it is empty none. JAX keeps apart what its versions and
    other processors compile.
    """
    caches = {"darwin": "~/Library/Caches", "win32": "~/AppData/Local"}.get(sys.platform, "~/.cache")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or caches).expanduser() / "fdiff" / "compiled"
    with contextlib.suppress(OSError):  # a home that cannot be written keeps nothing
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
            os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**31))  # bytes; the least used goes first
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt with its number, so that what was half written is removed."""

    def stop(number: int, _: Any) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parser() -> argparse.ArgumentParser:
    """The options of every command; those of pipelines are what their requests say."""
    top = argparse.ArgumentParser(
        prog="fdiff", description="Diffusion models in JAX.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"fdiff {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, description: str, examples: list[str]) -> argparse.ArgumentParser:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        added = commands.add_parser(
            name, help=description, description=description, epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    add_generate(command("generate", generate, "Make pictures with a pretrained model.", [
        line.strip() for line in EXAMPLES.splitlines() if line.startswith("  fdiff generate")
    ]), flags())

    training = command("train", train, "Train a model of your own.", [
        line.strip() for line in EXAMPLES.splitlines() if line.startswith("  fdiff train")
    ]).add_subparsers(required=True, metavar="TASK", dest="task")
    for name, task in tasks().items():
        add_train(training.add_parser(name, help=task["doc"], description=task["doc"]), task["settings"], TYPES)

    examples = ["fdiff evaluate mine --data pictures --samples 500", "fdiff evaluate molecules drawn.sdf"]
    add = command("evaluate", evaluate, "Measure what a model draws, beside data, and print figures as JSON.",
                  examples).add_argument
    add("model", metavar="FOLDER", help="a model's, such as `fdiff train` writes, or the name of one that fdiff ships")
    add("file", nargs="?", metavar="FILE", help="where the word molecules stands in place of FOLDER: those of a .xyz, "
        "plain, extended or as QM9 has it, of a .sdf, or of an .npz of positions and atomic_numbers")
    add("--data", metavar="PLACE", help="what it is compared with, as `fdiff train` takes it")
    add("--samples", type=int, default=1000, metavar="N", help="how many pictures it draws (default: 1000)")
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn, and of the classifier (default: 0)")
    add("--classifier-steps", type=int, default=2000, metavar="N", help="of fitting the classifier that reads the "
        "pictures (default: 2000)")

    examples = ["fdiff inspect google/ddpm-cat-256"]
    add_inspect(command("inspect", inspect, "Show what a model consists of.", examples))

    examples = ["fdiff list", "fdiff list schedulers", "fdiff list cached"]
    command("list", list_, "Show which pipelines, models and schedulers there are, and which checkpoints.", examples) \
        .add_argument("kind", nargs="?", choices=KINDS, help="of these alone")

    add = command("plot-scheduler", plot_scheduler, "Draw timesteps, noise levels and coefficients of schedulers.", [
        "fdiff plot-scheduler DDIMScheduler EulerDiscreteScheduler --steps 20 --out schedulers.png",
        "fdiff plot-scheduler ./model/scheduler",
    ]).add_argument
    add("schedulers", nargs="+", metavar="SCHEDULER", help="class names, Hub ids or folders")
    add("--steps", type=int, default=20, metavar="N", help="of the run to draw (default: 20)")
    add("--out", default="schedulers.png", help="the picture to write (default: schedulers.png)")

    add = command("convert", convert, "Write a model in the Hub's layout of today, as safetensors.", [
        line.strip() for line in EXAMPLES.splitlines() if line.startswith("  fdiff convert")
    ]).add_argument
    add("model", metavar="MODEL", help="a Hub id, a folder, or a single file of weights (.safetensors, .ckpt, .gguf)")
    add("out", metavar="FOLDER", help="the folder to write")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights written (default: float32)")
    add("--quantize", choices=QUANTIZED, help="write the networks and the text encoders in so many bits")
    add("--variant", help="read these weights, such as fp16")
    add("--tokenizer", metavar="SOURCE", help="where single files, which lack one, take it from")
    add("--config", metavar="SOURCE", help="where single files take their configs from (default: known by the tensors)")
    add("--prediction-type", choices=("epsilon", "v_prediction"), help="of single files whose tensors do not say it")
    add("--ema", action="store_true", help="of single files with averaged weights of the U-Net too, take those")

    command("completion", completion, "Write what makes a shell complete the command.", [
        'eval "$(fdiff completion bash)"                              in ~/.bashrc',
        'eval "$(fdiff completion zsh)"                               in ~/.zshrc, after compinit',
        "fdiff completion fish > ~/.config/fish/completions/fdiff.fish",
    ]).add_argument("shell", choices=("bash", "zsh", "fish"))
    return top


def generate(arguments: argparse.Namespace) -> None:
    """Make pictures, a sheet or a folder of them, and an animation if asked."""
    from fdiff.cli.generate import generate

    print(f"wrote {' and '.join(generate(arguments))}")


def train(arguments: argparse.Namespace) -> None:
    """Train a model of a task, or go on with a training."""
    from fdiff.cli.train import train

    print(f"wrote {train(arguments)}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print figures of a model."""
    from fdiff.cli.evaluate import evaluate

    print(evaluate(arguments))


def inspect(arguments: argparse.Namespace) -> None:
    """Print components, parameters, dtypes and the scheduler of a model, its weights unread."""
    hub.check_name(arguments.model)
    from fdiff.summary import summary

    print(summary(
        arguments.model, revision=arguments.revision, variant=arguments.variant, config=arguments.config
    ))  # fmt: skip


def list_(arguments: argparse.Namespace) -> None:
    """Print the classes and the checkpoints that there are."""
    from fdiff.cli.list import listing

    print(listing(arguments.kind))


def completion(arguments: argparse.Namespace) -> None:
    """Print the script of a shell by which `fdiff` is asked at every tab."""
    try:
        import argcomplete
    except ImportError:
        raise ValueError('completion needs argcomplete; install it with pip install "fdiff-jax[completion]"') from None
    print(argcomplete.shellcode(["fdiff"], shell=arguments.shell))


def plot_scheduler(arguments: argparse.Namespace) -> None:
    """Draw the schedulers named into one picture."""
    from fdiff import images

    if arguments.steps < 1:
        raise ValueError(f"--steps is {arguments.steps}; it must be 1 or more")
    images.picture_format(arguments.out)
    from fdiff.plotting import draw_schedulers

    named = {name: _scheduler(name) for name in arguments.schedulers}
    images.save(draw_schedulers(named, arguments.steps), arguments.out)
    print(f"wrote {arguments.out}")


def _scheduler(name: str) -> Any:
    """A scheduler from a class name, a Hub id, a folder or a scheduler_config.json."""
    from fdiff import schedulers

    if "/" in name or Path(name).exists():
        return schedulers.Scheduler.from_pretrained(name)
    return schedulers.named_scheduler(name)()


def convert(arguments: argparse.Namespace) -> None:
    """Write a model or a pipeline anew as safetensors in the Hub's layout."""
    hub.check_name(arguments.model)
    from fdiff.bars import bar
    from fdiff.conversion import convert

    bars: list[Any] = []  # none before something is written
    with contextlib.ExitStack() as stack:

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(bar(total=total, unit="B", unit_scale=True, desc="writing")))
            bars[0].update(done - bars[0].n)

        kind = convert(
            arguments.model, arguments.out, dtype=arguments.dtype, quantize=arguments.quantize,
            variant=arguments.variant, tokenizer=arguments.tokenizer, config=arguments.config,
            prediction_type=arguments.prediction_type, ema=arguments.ema, progress=progress,
        )  # fmt: skip
    print(f"wrote {arguments.out} ({kind})")
