"""Tokenizers that tokenizer.json says whole, as Mistral's and Gemma's are."""

import numpy as np
import pytest

import fdiff
from tests.tokenizers import tiny


def test_texts_have_a_start(tmp_path):
    tokenizer = fdiff.PreTrainedTokenizerFast.from_pretrained(tiny.mistral(tmp_path / "tiny"))
    ids, mask = tokenizer.batch(["cat", "[INST]cat"], 6)
    cat = tokenizer.id("cat")
    assert ids.tolist() == [[1, cat, 8, 8, 8, 8], [1, 3, cat, 8, 8, 8]]
    assert mask.sum(1).tolist() == [2, 3]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert fdiff.PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved") == tokenizer


def test_gemma_pads_behind(tmp_path):
    tokenizer = fdiff.GemmaTokenizer.from_pretrained(tiny.gemma(tmp_path / "tiny", padding_side="left"))
    ids, mask = tokenizer.batch(["a cat", ""], 4)
    assert ids.tolist() == [[2, tokenizer.id("a"), tokenizer.id("\u2581cat"), 0], [2, 0, 0, 0]]
    assert mask.sum(1).tolist() == [3, 1]


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["mistral", "gemma"])
def test_ids_live(tmp_path, kind):
    """Of ours in transformers, too."""
    transformers = pytest.importorskip("transformers")
    cls = {"mistral": fdiff.PreTrainedTokenizerFast, "gemma": fdiff.GemmaTokenizer}[kind]
    ours = cls.from_pretrained(getattr(tiny, kind)(tmp_path / "tiny"))
    ours.save_pretrained(tmp_path / "saved")
    texts = ["", "a cat's [INST] 12 cats", "\n two  cats</s>", "\u00e9\u4e2d\U0001f408", "<start_of_turn> a"]
    for folder in ("tiny", "saved"):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / folder, padding_side="right")
        wanted = theirs(texts, padding="max_length", max_length=40, truncation=True)
        found = ours.batch(texts, 40)
        np.testing.assert_array_equal(found.input_ids, wanted["input_ids"])
        np.testing.assert_array_equal(found.attention_mask, wanted["attention_mask"])
