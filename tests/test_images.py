"""Pictures of every kind that PIL opens, as numbers."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from fdiff import images
from fdiff.cli.pictures import open_picture
from fdiff.image_processors import CLIPImageProcessor
from fdiff.pipelines.inputs import pictures

RAMP = np.linspace(0, 1, 256)


def ramp(white, dtype, mode=None):
    """A picture (8, 256) from black to white."""
    return Image.fromarray(np.tile((RAMP * white).astype(dtype), (8, 1)), mode)


@pytest.mark.parametrize(
    "picture",
    [ramp(65535, np.uint16), ramp(65535, np.int32), ramp(1, np.float32), ramp(255, np.float32), ramp(255, np.int32),
     ramp(65535, ">u2")],
    ids=["16 bits", "32 bits", "floats", "floats to 255", "32 bits to 255", "big-endian"],
)  # fmt: skip
def test_white_is_white_in_every_mode(picture, tmp_path):
    wanted = np.broadcast_to((2 * RAMP - 1)[None, None, :, None], (1, 8, 256, 3))
    np.testing.assert_allclose(images.from_pil(picture), wanted, atol=0.01)
    np.testing.assert_allclose(pictures("image", picture), wanted, atol=0.01)
    np.testing.assert_allclose(pictures("mask", picture, low=0.0, mode="L")[0, 0, :, 0], RAMP, atol=0.005)
    grey = Image.fromarray(np.tile(np.round(RAMP * 255).astype(np.uint8), (8, 1)))
    processor = CLIPImageProcessor(size=8, crop_size=8)
    np.testing.assert_allclose(processor(picture), processor(grey), atol=0.03)
    if picture.mode == "I;16":
        picture.save(tmp_path / "x.png")
        np.testing.assert_allclose(images.from_pil(Image.open(tmp_path / "x.png")), wanted, atol=0.01)


def test_numbers_of_no_picture_are_refused():
    for picture in (ramp(300, np.float32), ramp(-1, np.float32), ramp(70000, np.int32), ramp(np.nan, np.float32)):
        with pytest.raises(ValueError, match=rf"a picture of mode {picture.mode} holds numbers from .*; convert it"):
            images.from_pil(picture)


@pytest.mark.parametrize(("number", "turn"), [(3, 2), (6, 1), (8, 3)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_the_command_opens_a_photo_as_viewers_show_it(tmp_path, number, turn, ending):
    shown = np.zeros((32, 16, 3), np.uint8)
    shown[:16, :, 0], shown[16:, :, 2] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = number
    file = tmp_path / f"photo.{ending}"
    Image.fromarray(np.rot90(shown, turn)).save(file, exif=exif)
    right = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    opened = open_picture(str(file)).convert("RGB")
    np.testing.assert_array_equal(opened, right)
    assert np.abs(np.asarray(opened, int) - shown).mean() < 8


def test_a_picture_that_would_fill_the_memory_is_one_sentence(tmp_path, monkeypatch):
    ramp(255, np.uint8).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"x.png is too large a picture"):
        open_picture(str(tmp_path / "x.png"))


def test_a_sheet_shows_its_gap_and_its_labels():
    black = [Image.new("L", (32, 32)) for _ in range(3)]
    plain = np.asarray(images.grid(black, columns=2, gap=4))
    assert plain.shape == (68, 68) and (plain[:32, 32:36] > 60).all() and not plain[:32, :32].any()
    named = np.asarray(images.grid(black, columns=2, gap=4, labels=["7", "a name that is too long for it", ""]))
    line = (named.shape[0] - 68) // 2
    below = named[32 : 32 + line]
    assert line > 8 and below[:, :32].min() < 128 and below[:, 36:].min() < 128 and (below[:, 32:36] == 255).all()
    assert (named[-line:] == 255).all(), "an empty label writes nothing"
    for sheet in (lambda: images.grid([]), lambda: images.grid(black, labels=["one"])):
        with pytest.raises(ValueError, match="cannot be laid; pass one image or more, and one label for each"):
            sheet()
