"""The text in picture files: exact when read back, and read by tools that fdiff did not write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fdiff import images, picture_text
from fdiff.picture_text import Parameters

ENDINGS = ("png", "jpg", "gif", "webp")
FIELDS = {
    "Steps": "20", "Sampler": "Euler a", "CFG scale": "7.5", "Seed": "12345", "Size": "512x384",
    "Model hash": "0123456789", "Model": "v1-5, pruned", "Version": "fdiff 0.1.0",
}  # fmt: skip
OWN = {"prompt": "Steps: 1, Seed: 2, \"Sampler\": {none}\nNegative prompt: \\no", "numbers": [1, 0.25, None]}


def picture():
    return Image.linear_gradient("L").resize((24, 16)).convert("RGB")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("prompt", ["a cat, (sitting:1.2)", "Кот на ковре 🐈\nand one more line"], ids=["a", "b"])
def test_a_text_comes_back_from_every_format(ending, prompt, tmp_path):
    text = picture_text.write(Parameters(prompt, "blurry, ugly", FIELDS, OWN))
    images.save(picture(), tmp_path / f"x.{ending}", text)
    assert images.read_text(tmp_path / f"x.{ending}") == text
    assert picture_text.parse(text) == (prompt, "blurry, ugly", FIELDS, OWN)


def test_folders_and_animations_keep_texts(tmp_path):
    images.save_all([picture(), picture()], tmp_path / "all", ["one", "two"])
    assert [images.read_text(file) for file in sorted((tmp_path / "all").iterdir())] == ["one", "two"]
    images.save_animation([picture(), picture().rotate(90)], tmp_path / "x.gif", text="x" * 1000)
    assert images.read_text(tmp_path / "x.gif") == "x" * 1000


def test_files_without_a_text_and_formats_that_keep_none(tmp_path):
    for name, text in (("plain.png", None), ("plain.jpg", None), ("plain.gif", None), ("x.bmp", "some text")):
        images.save(picture(), tmp_path / name, text)
        assert images.read_text(tmp_path / name) is None


def test_a_text_too_long_for_a_format_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"x.jpg cannot hold a text of 40,000 characters; call it something.png"):
        images.save(picture(), tmp_path / "x.jpg", "x" * 40_000)
    assert not list(tmp_path.iterdir())


def test_comments_of_other_programs(tmp_path):
    for data in (b"UNICODE\0" + "a cat".encode("utf-16-le"), b"ASCII\0\0\0a cat", b"a cat"):
        exif = Image.Exif()
        exif.get_ifd(images.EXIF)[images.USER_COMMENT] = data
        picture().save(tmp_path / "x.jpg", exif=exif)
        assert images.read_text(tmp_path / "x.jpg") == "a cat"


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029")).map(str.strip)
VALUES = st.dictionaries(st.sampled_from(["Steps", "Seed", "A b", "x/y-z"]), LINES, min_size=4)


@settings(deadline=None, max_examples=200)
@given(LINES.filter(lambda line: not line.startswith(picture_text.NEGATIVE)), LINES, VALUES,
       st.dictionaries(st.text(), st.text() | st.integers()))  # fmt: skip
def test_what_is_written_is_read(prompt, negative, fields, own):
    found = picture_text.parse(picture_text.write(Parameters(prompt, negative, fields, own)))
    assert found == (prompt, negative, fields, own)


@pytest.mark.parametrize("own", ["3", "{", '"{"', '"[1]"', '"{}'])
def test_what_is_not_ours_is_not_taken_for_it(own):
    found = picture_text.parse(f"a cat\nSteps: 1, Seed: 2, Size: 8x8, fdiff: {own}")
    assert found == ("a cat", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}, None)


def test_a_text_without_fields_is_a_prompt():
    for text in ("", "no field", "Steps: 1, Seed: 2"):
        assert picture_text.parse(text) == (text, "", {}, None)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_reader_of_others_understands_it(ending, tmp_path):
    """sd-parsers, which reads what A1111's web UI and others write."""
    parsers = pytest.importorskip("sd_parsers")
    text = picture_text.write(Parameters("a cat, on a mat", "blurry: very, ugly", FIELDS, OWN))
    images.save(picture(), tmp_path / f"x.{ending}", text)
    found = parsers.ParserManager().parse(tmp_path / f"x.{ending}")
    (sampler,) = found.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a cat, on a mat"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blurry: very, ugly"]
    assert (sampler.name, sampler.model.hash) == ("Euler a", "0123456789")
    assert sampler.parameters == {"cfg_scale": "7.5", "seed": "12345", "steps": "20"}
    assert found.metadata["Size"] == "512x384" and found.metadata["Version"] == "fdiff 0.1.0"
