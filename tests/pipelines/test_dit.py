"""Pictures of a class by way of latents, by a transformer or a U-Net."""

import jax
import numpy as np
import pytest

import fdiff
from tests.pipelines import checkpoints, parity
from tests.pipelines.conftest import tiny_unet

QUIET = {"progress": False}
VAE = {"block_out_channels": (4, 4), "norm_num_groups": 2, "latent_channels": 1, "sample_size": 16}
HALVES = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


@pytest.mark.parity
def test_parity(tmp_path):
    theirs, ours, params = parity.pair(tmp_path, checkpoints.dit())
    ours = ours.replace(id2label=tuple(f"class {i}, number {i}" for i in range(1000)))  # which diffusers does not save
    assert ours.class_number("class 11") == ours.class_number("number 11") == 11
    options = {"num_inference_steps": 20, "output_type": "np"}
    for scale in (4.0, 1.0):
        wanted = theirs([3, 11], generator=parity.generator(42), guidance_scale=scale, **options).images
        ours_images = ours(params, [3, "class 11"], torch_seed=42, guidance_scale=scale, **options, **QUIET).images
        parity.assert_close(ours_images, wanted)


def test_a_pipeline_of_latents_and_classes(tmp_path):
    unet, vae = tiny_unet(num_class_embeds=13), fdiff.AutoencoderKL(**VAE, **HALVES, in_channels=1, out_channels=1)
    names = tuple(f"{i}th, {i}" for i in range(12))
    pipe = fdiff.DiTPipeline(unet, vae, fdiff.DDIMScheduler(), names)
    params = {"transformer": unet.init_params(jax.random.key(0)), "vae": vae.init_params(jax.random.key(1))}
    run = pipe.steps(params, ["2th", 11], key=jax.random.key(1), guidance_scale=2.5, num_inference_steps=1)
    x, t = run.x, run.plan.t[0]
    of, none = (unet.apply({"params": params["transformer"]}, x, t, np.array(k)) for k in ([2, 11], [12, 12]))
    np.testing.assert_allclose(run.network(x, t), none + 2.5 * (of - none), atol=1e-5)
    alone = pipe.steps(params, [2, 11], key=jax.random.key(1), guidance_scale=0.5, num_inference_steps=1)
    np.testing.assert_allclose(alone.network(x, t), of, atol=1e-6)
    assert pipe(params, 2, key=jax.random.key(1), num_inference_steps=1, **QUIET).images[0].size == (16, 16)
    with pytest.raises(ValueError, match=r"no class 'tenth'; it has 0 to 11 \(0th, 1th"):
        pipe.steps(params, "tenth", key=jax.random.key(0))
    pipe.save_pretrained(tmp_path, params)
    index = (tmp_path / "model_index.json").read_text()
    assert '"10": "10th, 10"' in index
    tenth = '    "10": "10th, 10",\n'
    sorted_as_texts = index.replace(tenth, "").replace('    "2":', f'{tenth}    "2":')
    assert sorted_as_texts != index
    (tmp_path / "model_index.json").write_text(sorted_as_texts)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe
