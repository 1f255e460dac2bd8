"""Pipelines of the Hub at full size: built from their real configs, traced to the first step, no weights."""

import json

import jax
import numpy as np
import pytest

import fdiff
from fdiff.registry import find_component
from tests.some import some

CASES = {
    "runwayml/stable-diffusion-inpainting": (64, {"image": 512, "mask_image": 512}),
    "stabilityai/stable-diffusion-x4-upscaler": (128, {"image": 128}),
    "stabilityai/stable-diffusion-xl-base-1.0": (128, {}),
    "stabilityai/stable-diffusion-xl-refiner-1.0": (64, {"image": 512}),
}


@pytest.mark.parametrize("name", some(CASES, count=2))
def test_the_first_step_at_full_size(shared_data, name):
    folder, (size, pictures) = shared_data / "hub_configs" / name, CASES[name]
    index = json.loads((folder / "model_index.json").read_text())
    kind = getattr(fdiff, index["_class_name"])
    tokenizer = fdiff.CLIPTokenizer.from_folder(shared_data / "hub_configs/runwayml/stable-diffusion-v1-5/tokenizer")
    components = {part: value for part, value in index.items() if part in kind.__dataclass_fields__}
    shapes = {}
    for part, entry in index.items():
        if part.startswith("tokenizer"):
            components[part] = tokenizer
        elif "safety" in part or part == "feature_extractor":
            components.pop(part, None)
        elif isinstance(entry, list) and part in components:
            component = find_component(entry[1], name)
            if issubclass(component, fdiff.models.Model):
                file = folder / part / "config.json"
                components[part] = component.from_config(json.loads(file.read_text()), file=file)
                shapes[part] = components[part].shapes()
            elif part.endswith("scheduler"):
                components[part] = component.from_pretrained(folder / part)
    pipe = kind(**components)
    given = {part: np.zeros((side, side, 3 if part == "image" else 1), np.float32) for part, side in pictures.items()}

    def first_step(params):
        run = pipe.steps(params, "a photo of a cat", **given, key=jax.random.key(0), num_inference_steps=4)
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert out.shape == (1, size, size, 4)
    assert picture.shape[1] in (8 * size, 4 * size)


@pytest.mark.parametrize(("name", "shape"), [
    ("Tongyi-MAI/Z-Image-Turbo", (1, 64, 96, 16)), ("black-forest-labs/FLUX.2-klein-4B", (1, 32, 48, 128)),
])  # fmt: skip
def test_the_first_step_of_transformers_at_full_size(shared_data, name, shape):
    folder = shared_data / "hub_configs" / name
    index = json.loads((folder / "model_index.json").read_text())
    parts = ("scheduler", "vae", "text_encoder", "transformer")
    kinds = {part: find_component(index[part][1], name) for part in parts}
    loaded = {part: kind.from_config(json.loads((folder / part / "config.json").read_text()))
              for part, kind in kinds.items() if part != "scheduler"}  # fmt: skip
    tokenizer = fdiff.Qwen2Tokenizer.from_folder(shared_data / "hub_configs/Tongyi-MAI/Z-Image-Turbo/tokenizer")
    scheduler = kinds["scheduler"].from_pretrained(folder / "scheduler")
    pipe = getattr(fdiff, index["_class_name"])(scheduler=scheduler, tokenizer=tokenizer, **loaded)
    shapes = {part: module.shapes() for part, module in loaded.items()}

    def first_step(params):
        size = {"height": 512, "width": 768, "num_inference_steps": 4}
        run = pipe.steps(params, "a photo of a cat", **size, key=jax.random.key(0))
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert (out.shape, picture.shape) == (shape, (1, 512, 768, 3))


@pytest.mark.parametrize(
    "name", some(["stabilityai/stable-diffusion-3-medium-diffusers", "lodestones/Chroma1-HD"], count=1)
)
def test_the_first_step_of_transformers_that_t5_reads_for(shared_data, name):
    configs = shared_data / "hub_configs"
    index = json.loads((configs / name / "model_index.json").read_text())
    components, shapes = {}, {}
    for part, (_, cls) in ((part, entry) for part, entry in index.items() if isinstance(entry, list)):
        kind = find_component(cls, name)
        if issubclass(kind, fdiff.T5Tokenizer):
            components[part] = kind.from_folder(configs / "stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3")
        elif part.startswith("tokenizer"):
            components[part] = kind.from_folder(configs / "runwayml/stable-diffusion-v1-5/tokenizer")
        elif part == "scheduler":
            components[part] = kind.from_pretrained(configs / name / part)
        else:
            components[part] = kind.from_config(json.loads((configs / name / part / "config.json").read_text()))
            shapes[part] = components[part].shapes()
    pipe = getattr(fdiff, index["_class_name"])(**components)

    def first_step(params):
        size = {"height": 512, "width": 768, "num_inference_steps": 4}
        run = pipe.steps(params, "a photo of a cat", **size, key=jax.random.key(0))
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert (out.shape, picture.shape) == ((1, 64, 96, 16), (1, 512, 768, 3))
