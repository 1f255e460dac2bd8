"""Where fdiff's pipelines differ from diffusers' on purpose: their sizes, as docs/differences.md has them.

A difference is that of the last latents, as a share of the largest value, with the tiny random checkpoint of the tests.
"""

import numpy as np
import pytest
from PIL import Image

import fdiff
from tests.pipelines import checkpoints, inputs, newer, parity

pytestmark = pytest.mark.parity
QUIET = {"output_type": "latent", "progress": False}
EIGHT = {"num_inference_steps": 8}


def size(ours, theirs):
    """The largest difference, as a share of the largest value."""
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(ours).max()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("sd"), checkpoints.stable_diffusion("tiny"))


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory):
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("xl"), checkpoints.stable_diffusion_xl("tiny"))


@pytest.mark.parametrize(("prompts", "wanted"), [(1, 0), (2, 0.035)])
def test_sizes_told_to_the_negative_prompt_reach_the_wrong_pictures(tiny_xl, prompts, wanted):
    """diffusers repeats (negative, positive) as a pair, beside texts that are all negative first."""
    theirs, ours, params = tiny_xl
    told = {"negative_original_size": (512, 512), "negative_target_size": (64, 64)}
    given, latents = inputs.PROMPTS[:prompts], inputs.latents(prompts, 8)
    other = parity.latents_of(theirs, given, latents=parity.nchw(latents), **told, **EIGHT)
    micro = fdiff.MicroConditions(**told, negative_crops_coords_top_left=(0, 0))
    got = ours(params, given, latents=latents, micro_conditions=micro, **EIGHT, **QUIET).images
    assert size(got, other) == pytest.approx(wanted, rel=0.1, abs=1e-4)


def of_pictures(pair, name, pictures, strength):
    """(fdiff's, diffusers') latents of two prompts with two pictures, two images of each."""
    theirs, ours, params = parity.other(pair, name)
    options = {"num_images_per_prompt": 2, **EIGHT, **strength}
    other = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(pictures), generator=parity.generator(1), **options
    )
    return ours(params, inputs.PROMPTS, pictures, torch_seed=1, **options, **QUIET).images, other


def test_pictures_meet_other_prompts_where_each_is_drawn_twice(tiny):
    """diffusers lays pictures out 0, 1, 0, 1 beside prompts 0, 0, 1, 1; so its second is the second picture."""
    pictures = inputs.picture(16, 2)
    ours, theirs = of_pictures(tiny, "StableDiffusionImg2ImgPipeline", pictures, {"strength": 0.5})
    assert size(ours, theirs) == pytest.approx(0.24, rel=0.1)
    assert size(ours[::3], theirs[::3]) < 1e-3


def test_features_of_adapters_meet_other_prompts_where_each_is_drawn_twice(tiny, tmp_path):
    """The same of the pictures that adapters see."""
    import diffusers

    them = checkpoints.seeded(lambda: diffusers.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=2), 5)
    them.save_pretrained(tmp_path)
    module, tree = fdiff.T2IAdapter.from_pretrained(tmp_path)
    theirs, ours, params = parity.other(
        tiny, "StableDiffusionAdapterPipeline", {"adapter": tree}, {"adapter": module}, {"adapter": them}
    )
    pictures, latents = inputs.picture(16, 2) / 2 + 0.5, inputs.latents(4, 8)
    options = {"num_images_per_prompt": 2, "height": 16, "width": 16, **EIGHT}
    other = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(pictures), latents=parity.nchw(latents), **options
    )
    got = ours(params, inputs.PROMPTS, pictures, latents=latents, **options, **QUIET).images
    assert size(got, other) == pytest.approx(0.031, rel=0.1)
    assert size(got[::3], other[::3]) < 1e-3


def test_masks_of_sana_meet_other_prompts_where_each_is_drawn_twice(tmp_path):
    """The same of the masks of texts of other lengths."""
    from tests.pipelines import transformers

    theirs, ours, params = parity.pair(tmp_path / "saved", transformers.sana(tmp_path / "tokenizer"))
    options = {"num_images_per_prompt": 2, "height": 32, "width": 64, "use_resolution_binning": False, **EIGHT}
    latents = np.random.default_rng(0).standard_normal((4, 8, 16, 4)).astype(np.float32)
    prompts = ["cats", "many cats that are asleep"]
    other = parity.latents_of(theirs, prompts, latents=parity.nchw(latents), **options)
    got = ours(params, prompts, latents=latents, **options, **QUIET).images
    assert size(got, other) == pytest.approx(0.13, rel=0.1)
    assert size(got[::3], other[::3]) < 1e-3


@pytest.mark.parametrize(
    ("name", "config", "wanted"),
    [("PNDMScheduler", {}, 17.6), ("LMSDiscreteScheduler", {}, 0.031)],
)
def test_solvers_that_remember_begin_in_the_middle(tiny, name, config, wanted):
    import diffusers

    theirs, ours, params = parity.other(tiny, "StableDiffusionImg2ImgPipeline")
    theirs.scheduler = getattr(diffusers, name).from_config(ours.scheduler.to_config(), **config)
    ours = ours.replace(scheduler=getattr(fdiff, name).from_config(ours.scheduler, **config))
    image, options = inputs.picture(16), {"strength": 0.6, "num_inference_steps": 20}
    other = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(image), generator=parity.generator(1), **options
    )
    got = ours(params, inputs.PROMPTS, image, torch_seed=1, **options, **QUIET).images
    assert size(got, other) == pytest.approx(wanted, rel=0.1)


def test_numbers_of_eight_and_sixteen_bits():
    """White is 1: diffusers takes 2 x - 1 of byte arrays, and divides pictures of 16 bits by 255."""
    from diffusers.image_processor import VaeImageProcessor

    from fdiff.pipelines.inputs import pictures

    processor = VaeImageProcessor(vae_scale_factor=2)
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    assert pictures("image", white).max() == 1 and processor.preprocess(white).max() == 509
    wide = Image.fromarray(np.full((16, 16), 65535, np.uint16))
    assert pictures("image", wide, mode="L").max() == 1 and processor.preprocess(wide).max() == 513


def test_no_guess_mode_of_a_union_of_controls_runs(xl_pair):
    """diffusers halves the batch for it, but not the kinds of the pictures."""
    from tests.pipelines.test_more_members import union

    theirs, _, _ = parity.other(
        xl_pair, "StableDiffusionXLControlNetUnionPipeline", their_components={"controlnet": union(xl_pair[0].unet)},
        ours=False,
    )  # fmt: skip
    controls = [parity.nchw(inputs.picture(seed=s) / 2 + 0.5) for s in (2, 3)]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        parity.latents_of(
            theirs, inputs.PROMPTS[0], control_image=controls, control_mode=[1, 3], guess_mode=True,
            num_inference_steps=2,
        )  # fmt: skip


def test_a_part_around_a_mask_is_the_same():
    """The box, what fills it and how it comes back: no difference for pictures, masks and sizes of many shapes."""
    from diffusers.image_processor import VaeImageProcessor

    from fdiff.pipelines import crop

    processor, rng = VaeImageProcessor(vae_scale_factor=8), np.random.default_rng(0)
    for _ in range(50):
        (wide, high), (width, height) = rng.integers(40, 400, 2), 8 * rng.integers(8, 40, 2)
        mask = np.zeros((high, wide), np.uint8)
        (left, right), (top, bottom) = np.sort(rng.integers(0, wide, 2)), np.sort(rng.integers(0, high, 2))
        mask[top : bottom + 1, left : right + 1] = 255
        mask, padding = Image.fromarray(mask), int(rng.integers(0, 64))
        box = crop.box_around(mask, width / height, padding)
        assert box == tuple(processor.get_crop_region(mask, width, height, pad=padding))
        picture, drawn = (Image.fromarray(rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
                          for shape in ((high, wide), (height, width)))  # fmt: skip
        part, fill = picture.crop(box), {"resize_mode": "fill"}
        np.testing.assert_array_equal(crop.fitted(part, (width, height)), processor.resize(part, height, width, **fill))
        back = processor.apply_overlay(mask, picture, drawn, box).convert("RGB")
        np.testing.assert_array_equal(crop.put_back(picture, mask, box, [drawn])[0], back)


def test_masks_of_lumina2_go_to_other_prompts_where_each_is_drawn_twice(tmp_path):
    """diffusers repeats the list of masks, but each prompt by itself; prompts of one length are as here."""
    pytest.importorskip("diffusers")
    theirs, ours, params = parity.pair(tmp_path / "saved", newer.lumina2(tmp_path / "tokenizer"))
    options = {"num_images_per_prompt": 2, "height": 32, "width": 48, **EIGHT}
    sizes = []
    for prompts in (["a cat", "b cat"], ["a cat", "two cats that sleep"]):
        other = parity.latents_of(theirs, list(prompts), generator=parity.generator(1), **options)
        got = ours(params, prompts, torch_seed=1, **options, **QUIET).images
        sizes.append(size(got, other))
    assert sizes[0] < 1e-4 and sizes[1] > 0.01, sizes
