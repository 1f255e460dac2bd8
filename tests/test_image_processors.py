import json

import numpy as np
import pytest
from PIL import Image

from fdiff.image_processors import CLIPImageProcessor


def picture(width, height):
    rng = np.random.default_rng(width)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_the_middle_square_is_kept():
    """A picture whose middle third is white, twice as high as wide."""
    tall = np.full((60, 30, 3), -1.0, np.float32)
    tall[15:45] = 1
    processor = CLIPImageProcessor(size=30, crop_size=30)
    found = processor(tall[None])
    white = (1 - np.array(processor.image_mean)) / np.array(processor.image_std)
    np.testing.assert_allclose(found, np.broadcast_to(white, (1, 30, 30, 3)), rtol=1e-5)
    assert found.dtype == np.float32


def test_config_of_old_and_new_files(tmp_path):
    processor = CLIPImageProcessor(size=32, crop_size=28, image_mean=(0.5, 0.5, 0.5))
    processor.save_pretrained(tmp_path)
    assert CLIPImageProcessor.from_pretrained(tmp_path) == processor
    assert CLIPImageProcessor.from_config({"size": 32, "crop_size": 28, "image_mean": [0.5, 0.5, 0.5]}) == processor
    with pytest.raises(ValueError, match="do_center_crop"):
        CLIPImageProcessor.from_config({"do_center_crop": False})
    with pytest.raises(ValueError, match="makes squares"):
        CLIPImageProcessor.from_config({"crop_size": {"height": 3, "width": 4}})


def test_real_configs_are_read(shared_data):
    for file in (shared_data / "hub_configs").glob("*/*/feature_extractor/*.json"):
        assert CLIPImageProcessor.from_config(json.loads(file.read_text())) == CLIPImageProcessor()


@pytest.mark.parity
@pytest.mark.parametrize("size", [(224, 224), (512, 512), (300, 201), (97, 640), (1024, 576)])
def test_pictures_live(size):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPImageProcessorPil()(picture(*size), return_tensors="np").pixel_values
    ours = CLIPImageProcessor()([picture(*size)])
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-5)
