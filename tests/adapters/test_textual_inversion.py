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


def test_files_of_pivotal_tuning(tmp_path):
    one, other = np.arange(8, dtype=np.float32).reshape(2, 4), np.arange(12, dtype=np.float32).reshape(2, 6)

    def load(tensors, token=None):
        save_file(tensors, tmp_path / "emb.safetensors")
        return textual_inversion.load(tmp_path / "emb.safetensors", token)

    for names in (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")):
        found = load(dict(zip(names, (one, other), strict=True)))
        first, second = textual_inversion.split(found, ["<s0>", "<s1>"])
        assert (first.token, second.token) == ("<s0>", "<s1>")
        for vectors, table in zip(second.vectors, (one, other), strict=True):
            np.testing.assert_array_equal(vectors, table[1:])
    np.testing.assert_array_equal(load({"<a>": one[None]}).vectors[0], one)
    for tokens in ("<s0>", ["<s0>"], ["<s0>", "<s0>"]):
        with pytest.raises(ValueError, match=r"emb has 2 vectors, and the tokens are .*; give one for each"):
            textual_inversion.split(found, tokens)
    with pytest.raises(ValueError, match=r"emb.safetensors holds vectors for a T5 encoder, and words are for CLIP's"):
        load({"clip_l": one, "t5": other})
    with pytest.raises(ValueError, match=r"emb.safetensors holds int64 and no embeddings of words"):
        load({"<a>": one.astype(int)})


def test_words_bundled_with_a_lora(tmp_path):
    one, other = np.ones((2, 4), np.float32), np.zeros((2, 6), np.float32)
    lora = {"lora_unet_x.lora_up.weight": one, "lora_unet_x.alpha": np.ones(1)}

    def load(tensors, token=None):
        save_file(lora | tensors, tmp_path / "x.safetensors")
        return textual_inversion.load(tmp_path / "x.safetensors", token)

    both = {"bundle_emb.a v1.0.clip_g": other, "bundle_emb.a v1.0.clip_l": one}
    found = load(both)
    assert found.token == "a v1.0"
    assert [vectors.shape for vectors in found.vectors] == [(2, 4), (2, 6)]
    assert load(both, "<new>").token == "<new>"
    assert load(both | {"bundle_emb.b.string_to_param.*": one}, "b").vectors[0].shape == (2, 4)
    with pytest.raises(ValueError, match=r"holds several words, such as a v1.0, b; choose one with token="):
        load(both | {"bundle_emb.b.string_to_param.*": one})


@pytest.mark.parity
def test_tables_of_pivotal_tuning_beside_diffusers(clip, reference, tmp_path):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    folder, tokens = reference / "clip", ["<s0>", "<s1>"]
    table = 0.5 * np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder").float()
    others = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    theirs = diffusers.StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=encoder, **others, requires_safety_checker=False
    )
    theirs.load_textual_inversion(torch.from_numpy(table), token=tokens)
    save_file({"clip_l": table}, tmp_path / "emb.safetensors")
    pipe, params = clip
    for word in textual_inversion.split(textual_inversion.load(tmp_path / "emb.safetensors"), tokens):
        pipe, params = textual_inversion.add(pipe, params, word)
    prompt = "a <s1> beside <s0><s1>"
    ids = tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        want = encoder(ids).last_hidden_state.numpy()
    tokenized = tokenize(pipe.tokenizer, prompt)
    np.testing.assert_array_equal(tokenized.ids[:, 0], ids.numpy())
    found = jax.jit(encode, static_argnums=0)(pipe.text_encoder, params["text_encoder"], tokenized).embeddings
    used = int(tokenized.mask.sum())
    np.testing.assert_allclose(found[:, :used], want[:, :used], atol=1e-4 * np.abs(want).max())


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
