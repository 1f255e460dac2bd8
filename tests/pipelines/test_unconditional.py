"""Images from noise: host class and pure function agree, keys stand alone, folders round trip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff


def test_host_class_is_the_pure_function(unconditional):
    pipe, params = unconditional
    key = jax.random.key(1)
    host = pipe(params, key=key, batch_size=2, num_inference_steps=5, output_type="array", progress=False).images
    plan = pipe.scheduler.plan(5)
    pure = jax.jit(fdiff.unconditional, static_argnums=(0, 4))(pipe.unet, params, plan, key, 2)
    np.testing.assert_allclose(host, pure, atol=2e-5)


def test_an_image_does_not_depend_on_its_batch(unconditional):
    pipe, params = unconditional

    def draw(key, n):
        return pipe(params, key=key, batch_size=n, num_inference_steps=4, output_type="array", progress=False).images

    together = draw(jax.random.key(1), 3)
    np.testing.assert_allclose(together[:1], draw(jax.random.key(1), 1), atol=1e-5)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(1), i) for i in (2, 0)])
    np.testing.assert_allclose(draw(keys, 2), together[jnp.array([2, 0])], atol=1e-5)


def test_outputs(unconditional):
    pipe, params = unconditional
    drawn = pipe(params, key=jax.random.key(0), num_inference_steps=2, progress=False).images
    assert drawn[0].size == (8, 8) and drawn[0].mode == "L"
    drawn = pipe(params, key=jax.random.key(0), num_inference_steps=2, output_type="np", progress=False).images
    assert drawn.shape == (1, 8, 8, 1) and 0 <= drawn.min() <= drawn.max() <= 1


def test_ddim_pipeline_uses_ddim_whatever_the_checkpoint_names(unconditional):
    pipe, params = unconditional
    ddim = fdiff.DDIMPipeline(pipe.unet, pipe.scheduler)
    key = jax.random.key(1)
    got = ddim(params, key=key, num_inference_steps=3, output_type="array", progress=False).images
    plan = fdiff.DDIMScheduler.from_config(pipe.scheduler).plan(3)
    np.testing.assert_allclose(got, fdiff.unconditional(pipe.unet, params, plan, key), atol=2e-5)


def test_round_trip(unconditional, tmp_path):
    pipe, params = unconditional
    pipe.save_pretrained(tmp_path / "model", params)
    found, found_params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert found == pipe
    jax.tree.map(np.testing.assert_array_equal, params, found_params)
    swapped, _ = fdiff.DDPMPipeline.from_pretrained(tmp_path / "model", scheduler=fdiff.DDIMScheduler())
    assert swapped.scheduler == fdiff.DDIMScheduler()


def test_old_repositories_keep_components_beside_the_index(unconditional, tmp_path):
    pipe, params = unconditional
    pipe.save_pretrained(tmp_path, params)
    for file in [*(tmp_path / "unet").iterdir(), *(tmp_path / "scheduler").iterdir()]:
        file.rename(tmp_path / file.name)
    (tmp_path / "unet").rmdir()
    (tmp_path / "scheduler").rmdir()
    found, _ = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert found == pipe


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 1001}, "1000"),
        ({"batch_size": 0}, "batch_size"),
        ({"output_type": "jpeg"}, "output_type"),
    ],
)
def test_bad_input_is_one_sentence(unconditional, options, word):
    pipe, params = unconditional
    with pytest.raises(ValueError, match=word):
        pipe(params, key=jax.random.key(0), progress=False, **options)


def test_missing_components_are_named(unconditional, tmp_path):
    pipe, params = unconditional
    pipe.save_pretrained(tmp_path, params)
    with pytest.raises(ValueError, match="no component 'vae'"):
        fdiff.DDPMPipeline.from_pretrained(tmp_path, vae=None)
    with pytest.raises(ValueError, match="has no unet"):
        fdiff.DDPMPipeline.from_pretrained(tmp_path, unet=None)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDPMPipeline", "KandinskyPipeline"))
    with pytest.raises(ValueError, match="KandinskyPipeline"):
        fdiff.DiffusionPipeline.from_pretrained(tmp_path)


@pytest.mark.parity
def test_a_pipeline_that_diffusers_saved_and_back(tmp_path):
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    theirs = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())
    theirs.save_pretrained(tmp_path / "theirs")
    start = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(3))
    wanted = theirs(
        batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=10, output_type="np"
    ).images
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "theirs")
    network = jax.tree_util.Partial(pipe.unet.apply, {"params": params["unet"]})
    got = fdiff.sample(network, pipe.scheduler.plan(10), start.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(np.clip(got / 2 + 0.5, 0, 1), wanted, atol=1e-4)
    pipe.save_pretrained(tmp_path / "ours", params)
    back = diffusers.DDIMPipeline.from_pretrained(tmp_path / "ours")
    for name, tensor in unet.state_dict().items():
        assert torch.equal(tensor, back.unet.state_dict()[name]), name


def test_the_pure_function_rematerialises(unconditional):
    pipe, params = unconditional
    plan, key = pipe.scheduler.plan(2), jax.random.key(0)

    def loss(params, remat):
        return jnp.sum(fdiff.unconditional(pipe.unet, params, plan, key, remat=remat) ** 2)

    plain, again = (jax.jit(jax.grad(loss), static_argnums=1)(params, remat) for remat in (False, True))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=1e-4 * largest), plain, again)
