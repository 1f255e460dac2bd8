"""Textual inversion: words of every kind of file, and what a text encoder makes of them."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import fdiff
from fdiff.adapters import textual_inversion
from fdiff.prompts import encode, tokenize


@dataclasses.dataclass(frozen=True)
class Pipe:
    tokenizer: Any
    text_encoder: Any
    tokenizer_2: Any = None
    text_encoder_2: Any = None

    def replace(self, **components):
        return dataclasses.replace(self, **components)


@pytest.fixture(scope="module")
def clip(reference):
    folder = reference / "clip"
    tokenizer = fdiff.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    model, params = fdiff.CLIPTextModel.from_pretrained(folder / "text_encoder", dtype="float32")
    return Pipe(tokenizer, model), {"text_encoder": params}


def test_what_diffusers_makes_of_the_words(clip, reference):
    folder = reference / "textual_inversion"
    pipe, params = clip
    for source in (folder, folder / "wide.bin", folder / "style.pt"):
        pipe, params = textual_inversion.add(pipe, params, textual_inversion.load(source))
    with np.load(folder / "expected.npz") as expected:
        prompts, ids, states = (expected[name] for name in ("prompts", "ids", "states"))
    tokens = tokenize(pipe.tokenizer, [str(prompt) for prompt in prompts])
    np.testing.assert_array_equal(tokens.ids[:, 0], ids)
    found = jax.jit(encode, static_argnums=0)(pipe.text_encoder, params["text_encoder"], tokens).embeddings
    np.testing.assert_allclose(found[:, : states.shape[1]], states, atol=1e-4 * np.abs(states).max())


def test_files(tmp_path, shared_data):
    one, other = np.ones((2, 4), np.float32), np.zeros((2, 6), np.float32)

    def load(tensors, token=None, metadata=None):
        save_file(tensors, tmp_path / "name.safetensors", metadata)
        return textual_inversion.load(tmp_path, token, weight_name="name.safetensors")

    assert load({"<a>": one}).token == "<a>"
    assert load({"<a>": one}, "<b>").token == "<b>"
    assert load({"<a>": one[0]}).vectors[0].shape == (1, 4)
    assert load({"emb_params": one}).token == "name"
    sdxl = load({"clip_g": other, "clip_l": one}, "<xl>")
    assert [vectors.shape[1] for vectors in sdxl.vectors] == [4, 6]
    np.testing.assert_array_equal(load({"<a>": one, "<b>": 2 * one}, "<b>").vectors[0], 2 * one)
    with pytest.raises(ValueError, match=r"holds several words, such as <a>, <b>; choose one with token=\.$"):
        load({"<a>": one, "<b>": one})
    for shape in ((3, 3, 1, 1), (), (0, 4), (0,)):
        with pytest.raises(ValueError, match=r"name.safetensors holds no embeddings of words"):
            load({"<a>": np.zeros(shape, np.float32)})
    with pytest.raises(ValueError, match=r"name.safetensors holds an embedding of the empty word; name it with token"):
        load({" ": one})
    assert load({" ": one}, "<a>").token == "<a>"
    with pytest.raises(FileNotFoundError, match=r"has no learned_embeds\.safetensors nor learned_embeds\.bin"):
        textual_inversion.load(tmp_path)
    lora = shared_data / "weights" / "lora" / "cloneofsimo_lora_disney.safetensors"
    assert textual_inversion.load(lora, "<s2>").vectors[0].shape == (1, 768)


def test_two_text_encoders(clip):
    pipe, params = clip
    wide = fdiff.CLIPTextModel.from_config(pipe.text_encoder.config() | {"hidden_size": 64})
    params = params | {"text_encoder_2": jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wide.shapes())}
    pipe = pipe.replace(tokenizer_2=pipe.tokenizer, text_encoder_2=wide)
    vectors = np.ones((2, 32), np.float32), np.full((2, 64), 2.0, np.float32)
    new, changed = textual_inversion.add(pipe, params, textual_inversion.Embedding("<xl>", vectors))
    rows = pipe.text_encoder.vocab_size
    assert new.text_encoder.vocab_size == new.text_encoder_2.vocab_size == rows + 2
    assert new.tokenizer.ids("a <xl>") == [*pipe.tokenizer.ids("a"), rows, rows + 1]
    table = changed["text_encoder_2"][textual_inversion.TABLE]["embedding"]
    np.testing.assert_array_equal(table[rows:], vectors[1])
    assert params["text_encoder_2"][textual_inversion.TABLE]["embedding"].shape[0] == rows  # as it was


def test_two_text_encoders_of_one_width(clip):
    pipe, params = clip
    pipe = pipe.replace(tokenizer_2=pipe.tokenizer, text_encoder_2=pipe.text_encoder)
    params = params | {"text_encoder_2": params["text_encoder"]}
    vectors = np.ones((1, 32), np.float32), np.full((1, 32), 2.0, np.float32)
    _, changed = textual_inversion.add(pipe, params, textual_inversion.Embedding("<xl>", vectors))
    for name, want in zip(("text_encoder", "text_encoder_2"), vectors, strict=True):
        np.testing.assert_array_equal(changed[name][textual_inversion.TABLE]["embedding"][-1:], want)
    with pytest.raises(ValueError, match="no text encoder takes these"):
        textual_inversion.add(*clip, textual_inversion.Embedding("<xl>", vectors))


@pytest.mark.parity
def test_a_file_of_the_web_ui_without_a_name(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"string_to_param": {"*": torch.ones(2, 4)}, "name": None}, tmp_path / "style.pt")
    assert textual_inversion.load(tmp_path / "style.pt").token == "style"
    torch.save({"string_to_param": {"*": torch.ones(2, 4), "+": torch.ones(2, 4)}}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"two.pt holds embeddings of 2 terms; save each in a file of its own"):
        textual_inversion.load(tmp_path / "two.pt")


def test_what_is_refused(clip):
    pipe, params = clip
    pipe, params = textual_inversion.add(pipe, params, textual_inversion.Embedding("<b>", (np.ones((1, 32)),)))
    for token, width, message in [
        ("<b>", 32, "the tokenizer knows '<b>' already"),
        ("<a>", 48, "has vectors of 48 numbers, and no text encoder takes these; it was learned for another"),
    ]:
        embedding = textual_inversion.Embedding(token, (np.ones((1, width), np.float32),))
        with pytest.raises(ValueError, match=message):
            textual_inversion.add(pipe, params, embedding)
    with pytest.raises(ValueError, match="has vectors of 48 numbers, and the text encoder takes 32"):
        textual_inversion.extend(pipe.tokenizer, pipe.text_encoder, params["text_encoder"], "<a>", np.ones((1, 48)))
