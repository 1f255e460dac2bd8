import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models import CLIPTextModelWithProjection
from fdiff.prompts import Tokens, encode, parse_weights, tokenize
from fdiff.tokenizers import CLIPTokenizer
from tests.logs import listening, logged


@pytest.fixture(scope="module")
def tokenizer(reference):
    return CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\] \\ \x", [(r"(literal] \ x", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("(a cat:1.3), ([less]:2)", [("a cat", 1.3), (", ", 1), ("less", 2 / 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, ",
            [("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1)],
        ),
        ("a) b] :1.3) c: d", [("a) b] :1.3) c: d", 1)]),
        ("[a:b:0.5]", [("a:b:0.5", 1 / 1.1)]),
        ("(a:-.5)(b:1.2.3)", [("a", -0.5), ("b:1.2.3", 1.1)]),
        ("", []),
    ],
)
def test_weights_are_written_in_brackets(prompt, expected):
    found = parse_weights(prompt)
    assert [text for text, _ in found] == [text for text, _ in expected]
    np.testing.assert_allclose([w for _, w in found], [w for _, w in expected], rtol=1e-12)


def test_padding_is_that_of_transformers(reference):
    saved = json.loads((reference / "clip" / "ids.json").read_text())
    for name in ("tokenizer", "tokenizer_2"):
        with listening():
            tokens = tokenize(CLIPTokenizer.from_folder(reference / "clip" / name), saved["texts"])
        np.testing.assert_array_equal(tokens.ids[:, 0], saved[f"{name}.padded"])
        assert tokens.weights is None
    mask = np.load(reference / "clip" / "text.npz")["mask"]
    np.testing.assert_array_equal(tokens.mask[[4, 11], 0], mask)


def test_what_is_cut_off_is_told(tokenizer):
    with logged(r"has 80 tokens .* reads 75; this is cut off: 'a a a a moon'"):
        tokens = tokenize(tokenizer, "a " * 79 + "moon")
    assert tokens.ids.shape == (1, 1, 77)


def test_long_prompts_in_chunks(tokenizer):
    texts = ["a cat", "a " * 79 + "moon"]
    with listening() as told:
        tokens = tokenize(tokenizer, texts, chunked=True)
    assert not told
    assert tokens.ids.shape == (2, 2, 77)
    np.testing.assert_array_equal(tokens.mask.sum(-1), [[2 + len(tokenizer.ids("a cat")), 2], [77, 7]])
    np.testing.assert_array_equal(tokens.ids[1, :, 1:-1].ravel()[:80], tokenizer.ids(texts[1]))
    start, end = tokenizer.id("<|startoftext|>"), tokenizer.id("<|endoftext|>")
    assert (tokens.ids[..., 0] == start).all()
    assert (tokens.ids[..., -1] == end).all()


def test_weights_lie_on_their_tokens(tokenizer):
    tokens = tokenize(tokenizer, ["a (red:1.5) cat", "[dog]"], weighted=True)
    red, cat = len(tokenizer.ids("red")), len(tokenizer.ids("cat"))
    expected = np.ones((2, 77))
    expected[0, 2 : 2 + red] = 1.5
    expected[1, 1 : 1 + len(tokenizer.ids("dog"))] = 1 / 1.1
    np.testing.assert_allclose(tokens.weights[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(
        tokens.ids[0, 0, : 4 + red + cat - 1], tokenize(tokenizer, "a red cat").ids[0, 0, : 3 + red + cat]
    )


def test_breaks_begin_chunks(tokenizer):
    text = "a red (moon BREAK (the cat):1.5) BREAK " + "a " * 79
    with logged(r"has 79 tokens .* reads 75; this is cut off: 'a a a a'"):
        tokens = tokenize(tokenizer, [text, "a cat"], weighted=True)
    assert tokens.ids.shape == (2, 3, 77)
    for j, part in enumerate(("a red moon", "the cat", "a " * 75)):
        np.testing.assert_array_equal(tokens.ids[0, j], tokenize(tokenizer, part).ids[0, 0])
    cat = len(tokenizer.ids("the cat"))
    np.testing.assert_allclose(tokens.weights[0, 1, 1 : 1 + cat], 1.5 * 1.1, rtol=1e-6)
    assert tokenize(tokenizer, text, weighted=True, chunked=True).ids.shape == (1, 4, 77)
    assert tokenize(tokenizer, "a BREAK b").ids.shape == (1, 1, 77)  # a word, where weights are not asked for


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a [red:blue:0.5] cat", r"has '\[red:blue:0.5\]', which changes while .*prompts.schedule .*write \\\[ and"),
        ("(a [cat|dog]:1.2)", r"has '\[cat\|dog\]', which changes"),
        ("a cat AND a dog", r"has AND, which adds prompts up; .*prompts.composition .*guidance.composed"),
    ],
)
def test_what_one_text_cannot_be(tokenizer, prompt, message):
    with pytest.raises(ValueError, match=message):
        tokenize(tokenizer, ["a cat", prompt], weighted=True)
    assert tokenize(tokenizer, prompt).ids.shape == (1, 1, 77)
    escaped = prompt.replace("[", r"\[").replace("]", r"\]").replace("AND", "and")
    assert tokenize(tokenizer, escaped, weighted=True).ids.shape == (1, 1, 77)


@pytest.mark.parametrize("wrong", [3, None, ["a", 3]])
def test_a_prompt_is_a_string(tokenizer, wrong):
    with pytest.raises(ValueError, match=r"a prompt must be a string, not (int|NoneType)"):
        tokenize(tokenizer, wrong, weighted=True)


@pytest.fixture(scope="module")
def encoder(reference):
    return CLIPTextModelWithProjection.from_pretrained(reference / "clip" / "text_encoder_2", dtype="float32")


def test_embeddings_are_those_of_the_encoder(reference, encoder):
    saved = np.load(reference / "clip" / "text.npz")
    model, params = encoder
    tokens = Tokens(saved["ids"][:, None], saved["mask"][:, None])
    last = jax.jit(lambda p, t: encode(model, p, t))(params, tokens)
    np.testing.assert_allclose(last.embeddings, saved["text_encoder_2.last_hidden_state"], atol=3e-4)
    np.testing.assert_allclose(last.pooled, saved["text_encoder_2.text_embeds"], atol=3e-4)
    masked = encode(model, params, tokens, penultimate=True, use_mask=True)
    np.testing.assert_allclose(masked.embeddings, saved["text_encoder_2.masked.penultimate"], atol=3e-4)
    skipped = encode(model, params, tokens, clip_skip=1)
    np.testing.assert_allclose(skipped.embeddings, saved["text_encoder_2.skipped"], atol=3e-4)


def test_chunks_are_joined_and_weights_keep_the_mean(tokenizer, encoder):
    model, params = encoder
    run = jax.jit(lambda t: encode(model, params, t, penultimate=True))
    text = "a (red:1.5) cat " + "[on] the moon " * 30
    tokens = tokenize(tokenizer, [text], weighted=True, chunked=True)
    embeddings, pooled = run(tokens)
    assert embeddings.shape == (1, tokens.ids.shape[1] * 77, 32)
    plain = tokens._replace(weights=None)
    for i in range(tokens.ids.shape[1]):
        chunk = jax.tree.map(lambda x, i=i: x[:, i : i + 1], tokens)
        part = run(chunk)
        np.testing.assert_allclose(embeddings[:, 77 * i : 77 * (i + 1)], part.embeddings, atol=1e-4)
        unweighted = run(chunk._replace(weights=None)).embeddings
        expected = unweighted * chunk.weights[:, 0, :, None]
        expected *= unweighted.mean() / expected.mean()
        np.testing.assert_allclose(part.embeddings, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(pooled, run(jax.tree.map(lambda x: x[:, :1], plain)).pooled, atol=1e-4)
    ones = tokens._replace(weights=np.ones_like(tokens.weights))
    np.testing.assert_allclose(run(ones).embeddings, run(plain).embeddings, atol=1e-6)


def test_weights_of_embeddings_whose_mean_is_zero(tokenizer, encoder):
    model, params = encoder
    norm = jax.tree.map(jnp.zeros_like, params["text_model.final_layer_norm"])
    tokens = tokenize(tokenizer, ["a (cat:1.3)"], weighted=True)
    found = encode(model, {**params, "text_model.final_layer_norm": norm}, tokens)
    np.testing.assert_array_equal(found.embeddings, 0)


def test_concepts_are_rows_of_the_table(tokenizer, encoder):
    """Textual inversion: a wider table, a model of that size, a tokenizer that knows the word."""
    model, params = encoder
    name = "text_model.embeddings.token_embedding"
    table = params[name]["embedding"]
    ids = tokenizer.ids("moon cat")
    taught = tokenizer.with_concept("<moon-cat>", len(ids))
    wider = {**params, name: {"embedding": jnp.concatenate([table, table[np.array(ids)]])}}
    bigger = model.clone(vocab_size=len(taught))
    same = tokenize(tokenizer, "a moon cat").ids
    new = tokenize(taught, "a <moon-cat>")
    assert same.shape == new.ids.shape
    assert (same != new.ids).any()
    ours, theirs = encode(bigger, wider, new), encode(model, params, Tokens(same, same))
    np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=1e-5)
