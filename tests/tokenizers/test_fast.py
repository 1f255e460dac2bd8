"""Tokenizers that tokenizer.json says whole, as Mistral's is."""

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


@pytest.mark.parity
def test_ids_live(tmp_path):
    """Of ours in transformers, too."""
    transformers = pytest.importorskip("transformers")
    ours = fdiff.PreTrainedTokenizerFast.from_pretrained(tiny.mistral(tmp_path / "tiny"))
    ours.save_pretrained(tmp_path / "saved")
    texts = ["", "a cat's [INST] 12 cats", "\n two  cats</s>", "\u00e9\u4e2d\U0001f408"]
    for folder in ("tiny", "saved"):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        wanted = theirs(texts, padding="max_length", max_length=40, truncation=True)
        found = ours.batch(texts, 40)
        np.testing.assert_array_equal(found.input_ids, wanted["input_ids"])
        np.testing.assert_array_equal(found.attention_mask, wanted["attention_mask"])
