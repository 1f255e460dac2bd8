"""What users wait for: a picture from a text, a training step, loading, importing, compiling, and the memory of it."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.case import Case, Ready, Run, Setting, fill, normal, parameters
from tests.benchmarks.clock import seconds
from tests.benchmarks.networks import CIFAR10, CLIP, DIGITS, NARROW_UNET, NARROW_VAE, SD_UNET, VAE

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "tests" / "reference" / "clip" / "tokenizer"
PROMPT = "a photo of a cat"
RATE = 1e-4


def write(dtype: str, setting: Setting) -> None:
    """Stable Diffusion 1.5's folder, with random weights."""
    import jax

    import fdiff

    small = setting.small
    unet = fdiff.UNet2DConditionModel(**{**SD_UNET, **(NARROW_UNET | {"sample_size": 16} if small else {})})
    vae = fdiff.AutoencoderKL(**{**VAE, "sample_size": 512, **(NARROW_VAE if small else {})})
    pipe = fdiff.StableDiffusionPipeline(
        vae,
        fdiff.CLIPTextModel.from_config({**CLIP, **({"num_hidden_layers": 1} if small else {})}),
        fdiff.CLIPTokenizer.from_folder(TOKENIZER),
        unet,
        fdiff.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
            set_alpha_to_one=False,
        ),
    )  # fmt: skip
    models = {"vae": pipe.vae, "text_encoder": pipe.text_encoder, "unet": pipe.unet}
    trees = {name: parameters(model) for name, model in models.items()}
    pipe.save_pretrained(setting.folder / "model", jax.tree.map(lambda leaf: leaf.astype(dtype), trees))


def size(setting: Setting) -> dict[str, int]:
    """Height and width of a picture."""
    return {"height": 32, "width": 32} if setting.small else {"height": 512, "width": 512}


def picture(library: str, dtype: str, steps: int, setting: Setting, quantize: str | None = None) -> Ready:
    """A picture from a text, from the same latents."""
    folder, options = setting.folder / "model", {"num_inference_steps": steps, **size(setting)}
    edge = options["height"] // (2 if setting.small else 8)
    latents = normal(1, edge, edge, 4)
    if library == "torch":
        import diffusers
        import torch

        kind = getattr(torch, dtype)
        theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=kind)
        theirs.set_progress_bar_config(disable=True)
        given = torch.from_numpy(latents).permute(0, 3, 1, 2).contiguous().to(kind)
        return Ready(lambda: lambda: np.asarray(theirs(PROMPT, latents=given, **options).images[0], np.float32))
    import fdiff

    how = {"quantize": quantize} if quantize else {}
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **how)

    def run() -> np.ndarray:
        return np.asarray(pipe(params, PROMPT, latents=latents, progress=False, **options).images[0], np.float32)

    return Ready(lambda: run)


def training(library: str, setting: Setting, remat: bool = False) -> Ready:
    """A step that predicts noise, with AdamW, whose own draws of times and noise differ from library to library."""
    batch, config = (2, {**DIGITS, "num_class_embeds": None}) if setting.small else (8, CIFAR10)
    edge, channels = config["sample_size"], config.get("in_channels", 3)
    x0 = np.random.default_rng(1).uniform(-1, 1, (batch, edge, edge, channels)).astype(np.float32)
    return _training_torch(config, x0) if library == "torch" else _training_fdiff(config, x0, remat)


def _training_torch(config: Any, x0: np.ndarray) -> Ready:
    import diffusers
    import torch

    network, scheduler = fill(diffusers.UNet2DModel(**config)).train(), diffusers.DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    pictures = torch.from_numpy(x0).permute(0, 3, 1, 2).contiguous()

    def step() -> None:
        t, noise = torch.randint(0, 1000, (len(x0),)), torch.randn_like(pictures)
        loss = torch.nn.functional.mse_loss(network(scheduler.add_noise(pictures, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return Ready(lambda: lambda: seconds(step))


def _training_fdiff(config: Any, x0: np.ndarray, remat: bool) -> Ready:
    import jax
    import optax
    from jax.tree_util import Partial

    import fdiff
    from fdiff import training
    from fdiff.cli.process import keep_memory

    keep_memory()  # as `fdiff train` does
    model, scheduler, optimizer = fdiff.UNet2DModel.from_config(config), fdiff.DDPMScheduler(), optax.adamw(RATE)

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return training.denoising_loss(Partial(model.apply, {"params": params}), scheduler, batch, key)

    state = training.init(parameters(model), optimizer=optimizer, averages=0)

    def begin() -> Run:
        step = Partial(training.train_step, loss=loss, optimizer=optimizer, decays=(), remat=remat)
        compiled = jax.jit(step, donate_argnums=0).lower(state, x0, jax.random.key(0)).compile()
        held = [state]

        def run() -> None:
            held[0], metrics = compiled(held[0], x0, jax.random.key(0))
            float(metrics["loss"])

        return lambda: seconds(run)

    return Ready(begin)


def fresh(code: str, setting: Setting, cache: str = os.devnull, *arguments: str) -> float:
    """The seconds that a new process says it took, or else those from its start to its end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    environ |= {"PYTHONPATH": _checkout(), "XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1",
                "JAX_TRACEBACK_FILTERING": "off"}  # whose last line is not the error
    if cache != os.devnull:
        environ |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    said: list[str] = []

    def run() -> None:
        line = [sys.executable, "-P", "-c", code, *arguments]  # -P: not what the current folder holds
        done = subprocess.run(line, capture_output=True, text=True, env=environ, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        said.extend(done.stdout.splitlines())

    took = seconds(run)
    return float(json.loads(said[-1])) if said and said[-1][:1].isdigit() else took


def _checkout() -> str:
    """Where this process has fdiff from."""
    import fdiff

    return str(Path(str(fdiff.__file__)).parents[1])


READ = """
import json, sys, time
library, folder = sys.argv[1:]
if library == "fdiff":
    import fdiff, jax
    jax.device_put(0.0)
    fdiff.StableDiffusionPipeline
else:
    import diffusers, torch, transformers
    diffusers.StableDiffusionPipeline, transformers.CLIPTextModel, diffusers.UNet2DConditionModel
    diffusers.AutoencoderKL
start = time.perf_counter()
if library == "fdiff":
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder, dtype="float32")
    for leaf in jax.tree.leaves(params):
        leaf.__array__().sum()
else:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    for part in pipe.components.values():
        for parameter in part.parameters() if isinstance(part, torch.nn.Module) else ():
            parameter.detach().numpy().sum()
print(json.dumps(time.perf_counter() - start))
"""
SAMPLER = """
import json, sys, time
import jax, fdiff
from jax.tree_util import Partial

unet = fdiff.UNet2DConditionModel(**json.loads(sys.argv[1]))
edge, width = unet.sample_size, unet.cross_attention_dim
plan = fdiff.DDIMScheduler().plan(20)
jax.device_put(0.0)

def asked(params, x, t, text):
    return unet.apply({"params": params}, x, t, text)

def draw(params, x, words, nothing):
    network = Partial(asked, params)
    return fdiff.sample(fdiff.guidance.classifier_free(network, words, nothing, 7.5), plan, x)

text = jax.ShapeDtypeStruct((1, 77, width), "float32")
params, x = unet.shapes(), jax.ShapeDtypeStruct((1, edge, edge, 4), "float32")
start = time.perf_counter()
jax.jit(draw).lower(params, x, text, text).compile()
print(json.dumps(time.perf_counter() - start))
"""
HELP = "import sys; sys.argv = ['fdiff', 'generate', '--help']; from fdiff.cli import main; main()"
COMMAND = "import sys; sys.argv[0] = 'fdiff'; from fdiff.cli import main; sys.exit(main())"
IMPORTS = {
    "fdiff": "import fdiff; fdiff.StableDiffusionPipeline",
    "torch": "import diffusers; diffusers.StableDiffusionPipeline",
}


def loading(library: str, setting: Setting) -> Ready:
    """A folder of float32, of which every weight is read once: its files are in the system's cache."""
    return Ready(lambda: lambda: fresh(READ, setting, os.devnull, library, str(setting.folder / "model")))


def importing(library: str, setting: Setting) -> Ready:
    """From the start of Python to its end."""
    return Ready(lambda: lambda: fresh(IMPORTS[library], setting))


def compiling(cached: bool, setting: Setting) -> Ready:
    """Tracing and compiling 20 guided steps, for nothing or for what another process has compiled before."""
    config = json.dumps({**SD_UNET, **(NARROW_UNET | {"sample_size": 16} if setting.small else {})})
    return _cached(cached, setting, SAMPLER, config)


def command(cached: bool, setting: Setting) -> Ready:
    """`fdiff generate`, as it comes."""
    return _cached(cached, setting, COMMAND, "generate", "--out", str(setting.folder / "digits.png"))


def _cached(cached: bool, setting: Setting, code: str, *arguments: str) -> Ready:
    cache = setting.folder / "cache"

    def run() -> float:
        if cached:
            return fresh(code, setting, str(cache), *arguments)
        with tempfile.TemporaryDirectory() as empty:
            return fresh(code, setting, empty, *arguments)

    def begin() -> Run:
        if cached:
            run()
        return run

    return Ready(begin)


def griffin_lim(library: str, setting: Setting) -> Ready:
    """32 rounds on 10 seconds at 16 kHz, all phases being 0 at first."""
    at = np.arange(16000 if setting.small else 160000) / 16000
    sound = np.sin(2 * np.pi * (200 + 300 * at) * at) + 0.1 * normal(len(at))
    fft, hop = 1024, 256
    if library == "librosa":
        import librosa

        magnitude = np.abs(librosa.stft(sound.astype(np.float32), n_fft=fft, hop_length=hop))
        options = {"n_iter": 32, "hop_length": hop, "n_fft": fft, "init": None}
        return Ready(lambda: lambda: librosa.griffinlim(magnitude, **options))
    import jax

    from fdiff import audio

    magnitude = np.abs(np.asarray(audio.stft(sound.astype(np.float32), fft, hop)))
    compiled = jax.jit(lambda magnitude: audio.griffin_lim(magnitude, n_iter=32, hop=hop))
    return Ready(lambda: lambda: np.asarray(compiled(magnitude)))


def pair(function: Any, *arguments: Any) -> dict[str, Any]:
    """Both libraries."""
    return {library: functools.partial(function, library, *arguments) for library in ("fdiff", "torch")}


MODEL = {dtype: functools.partial(write, dtype) for dtype in ("float32", "bfloat16")}
QUANTISED = {"fdiff": functools.partial(picture, "fdiff", "bfloat16", 1, quantize="int8")}
CASES = [
    Case("text_to_image", "a picture of 512x512 by SD 1.5 in 20 guided steps", pair(picture, "float32", 20),
         gigabytes=6.0, rounds=2, before=MODEL["float32"]),
    Case("bfloat16", "a picture of 512x512 by SD 1.5 in one guided step, in bfloat16", pair(picture, "bfloat16", 1),
         gigabytes=5.0, rounds=2, before=MODEL["bfloat16"]),
    Case("int8", "the same, with weights in int8", QUANTISED, gigabytes=4.0, rounds=2, before=MODEL["bfloat16"]),
    Case("train_step", "a training step of ddpm-cifar10-32, batch 8",
         pair(training) | {"remat": functools.partial(training, "fdiff", remat=True)}, gigabytes=3.0),
    Case("griffin_lim", "Griffin and Lim's algorithm, 32 rounds on 10 s of sound",
         {side: functools.partial(griffin_lim, side) for side in ("fdiff", "librosa")}),
    Case("load", "loading SD 1.5, 4.3 GB of float32, every weight read once", pair(loading), gigabytes=5.0, rounds=3,
         before=MODEL["float32"]),
    Case("import", "importing it, and its StableDiffusionPipeline", pair(importing)),
    Case("help", "`fdiff generate --help`", {"fdiff": lambda setting: Ready(lambda: lambda: fresh(HELP, setting))}),
    Case("sampler", "compiling SD 1.5's sampler of 20 guided steps",
         {"fdiff": functools.partial(compiling, False), "cache": functools.partial(compiling, True)}, rounds=2),
    Case("start", "`fdiff generate`, from its start to its end, the first time and again",
         {"fdiff": functools.partial(command, False), "cache": functools.partial(command, True)}, rounds=3),
]  # fmt: skip
