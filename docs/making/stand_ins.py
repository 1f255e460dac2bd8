"""What stands in for the Hub while pages run: tiny checkpoints under the names that pages use, and files of readers.

They have the layout, the classes and the names of the real ones and random weights, so that code runs as it is typed,
quickly and without a network. What they draw is noise: a page shows pictures of models that fdiff ships.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docs.making.pages import ROOT
from tests.fake_hub import FakeHub, Files

REFERENCE = ROOT / "tests" / "reference"


def fill(hub: FakeHub, text: str, repositories: Mapping[str, Callable[[], Files]] | None = None) -> None:
    """Have the hub serve the stand-ins that a page names, of these below if not given."""
    for name, files in (repositories or REPOSITORIES).items():
        if name in text:
            hub.add(name, files())


def give(folder: Path, text: str) -> None:
    """Write into the folder the files that a page names and a reader would have."""
    for name, make in FILES.items():
        if name in text:
            make(folder / name)


def files_of(root: Path, under: str = "") -> Files:
    """Every file of a folder, as files below `under`."""
    return {f"{under}{file.relative_to(root).as_posix()}": file.read_bytes()
            for file in sorted(root.rglob("*")) if file.is_file()}


def reference(path: str, under: str = "") -> Files:
    """The same of a folder of tests/reference."""
    return files_of(REFERENCE / path, under)


def stable_diffusion() -> tuple[Any, Any]:
    """(pipeline, params) shaped like Stable Diffusion 1.5, but with one level of the U-Net's four."""
    import jax
    import numpy as np

    import fdiff

    models: dict[str, Any] = {
        "unet": fdiff.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8,), layers_per_block=2, norm_num_groups=4, attention_head_dim=2,
            cross_attention_dim=16, down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        ),
        "vae": fdiff.AutoencoderKL(
            block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "text_encoder": fdiff.CLIPTextModel(
            vocab_size=664, hidden_size=16, intermediate_size=16, num_attention_heads=4, num_hidden_layers=2,
            eos_token_id=663,
        ),
    }  # fmt: skip
    random = np.random.default_rng(0)

    def drawn(leaf: Any) -> Any:
        return (0.1 * random.standard_normal(leaf.shape)).astype(np.float16)

    scheduler = fdiff.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    tokenizer = fdiff.CLIPTokenizer.from_folder(REFERENCE / "clip" / "tokenizer")
    pipe = fdiff.StableDiffusionPipeline(tokenizer=tokenizer, scheduler=scheduler, **models)
    return pipe, {name: jax.tree.map(drawn, model.shapes()) for name, model in models.items()}


def stable_diffusion_files() -> Files:
    """Its repository."""
    with tempfile.TemporaryDirectory() as folder:
        pipe, params = stable_diffusion()
        pipe.save_pretrained(Path(folder) / "sd", params)
        return files_of(Path(folder) / "sd")


def stable_diffusion_xl() -> Files:
    """An SDXL."""
    tokenizers = reference("clip/tokenizer", "tokenizer/") | reference("clip/tokenizer_2", "tokenizer_2/")
    return reference("pipelines/xl") | tokenizers


def transformer(name: str) -> Files:
    """Z-Image or FLUX.2 klein, of two blocks, 32 places a side of 512 pixels and a text encoder of 28 layers."""
    from tests.pipelines import transformers

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pipe, params = getattr(transformers, name)(place / "tokenizer")
        pipe.save_pretrained(place / "saved", params)
        return files_of(place / "saved")


def ddpm() -> Files:
    """A pipeline of the time when everything lay beside the index."""
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear"}
    return {
        **reference("unet_2d/attention"),
        "model_index.json": json.dumps({"_class_name": "DDPMPipeline", **parts}).encode(),
        "scheduler_config.json": json.dumps(scheduler).encode(),
    }


def lora(file: Path) -> None:
    """A LoRA of rank 2 for the stand-in of Stable Diffusion 1.5."""
    from fdiff.adapters.lora import NAMES, save
    from tests.adapters.tiny import adapter

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "lora", adapter(stable_diffusion()[1], only="attn"))
        file.write_bytes((Path(folder) / "lora" / NAMES[0]).read_bytes())


def embedding(file: Path) -> None:
    """A word of two vectors for its text encoder, as A1111 writes it."""
    import numpy as np

    from convert.safetensors import Array, write

    vectors = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    write(file, {"emb_params": Array(vectors.shape, vectors.dtype, lambda: vectors)})


def single_file(file: Path) -> None:
    """The stand-in of Stable Diffusion 1.5 in one file, by its names of old."""
    from convert import safetensors, weights
    from tests.convert import original_names as names

    def widened(linear: Any) -> Any:
        return linear._replace(shape=(*linear.shape, 1, 1))

    parts = {name: weights.arrays(tree) for name, tree in stable_diffusion()[1].items()}
    found = {f"model.diffusion_model.{name}": x for name, x in names.unet(parts["unet"]).items()}
    linear = names.vae(parts["vae"], widened)
    found |= {f"first_stage_model.{name}": x for name, x in linear.items()}
    found |= {f"cond_stage_model.transformer.{name}": x for name, x in parts["text_encoder"].items()}
    safetensors.write(file, found)


def single_transformer(file: Path) -> None:
    """The transformer of Z-Image's stand-in in one file, by the names of its authors."""
    from tests.convert import original_transformers as names
    from tests.pipelines import transformers

    with tempfile.TemporaryDirectory() as folder:
        params = transformers.z_image_as_shaped(Path(folder))[1]
    names.write(file, names.original(names.arrays(params["transformer"])))


def photo(file: Path) -> None:
    """A picture, 64 x 64: a sun above a hill."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (64, 64), "skyblue")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 8, 54, 22), "gold")
    draw.ellipse((-20, 36, 60, 100), "seagreen")
    picture.save(file)


def mask(file: Path) -> None:
    """What to paint of it, white: the sun's place."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (64, 64))
    ImageDraw.Draw(picture).rectangle((32, 0, 63, 31), "white")
    picture.save(file)


REPOSITORIES: dict[str, Callable[[], Files]] = {
    "google/ddpm-cat-256": ddpm,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": stable_diffusion_files,
    "stabilityai/stable-diffusion-xl-base-1.0": stable_diffusion_xl,
    "Tongyi-MAI/Z-Image-Turbo": lambda: transformer("z_image_as_shaped"),
    "black-forest-labs/FLUX.2-klein-4B": lambda: transformer("klein_as_shaped"),
    "openai/clip-vit-large-patch14": lambda: reference("clip/tokenizer"),
    "madebyollin/taesd": lambda: reference("autoencoders/tiny"),
}
FILES: dict[str, Callable[[Path], None]] = {
    "style.safetensors": lora,
    "word.safetensors": embedding,
    "v1-5-pruned-emaonly.safetensors": single_file,
    "z_image_turbo.safetensors": single_transformer,
    "photo.png": photo,
    "mask.png": mask,
}
