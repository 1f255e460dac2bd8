"""The tokenizers of RoBERTa and T5, beside transformers."""

import shutil

import numpy as np
import pytest

import fdiff

TEXTS = [
    "A dog barks,  twice. ",
    "",
    "Caf\u00e9 \u2018quoted\u2019 \u4f60\u597d <extra_id_3> don't </s> 1234 \U0001f600\ttab\nline",
    "long " * 700,
]
FOLDERS = {
    "roberta": ("cvssp/audioldm-s-full-v2/tokenizer", fdiff.RobertaTokenizer),
    "t5": ("stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3", fdiff.T5Tokenizer),
}


def theirs(folder, length):
    """What transformers makes of the texts."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="np")
    return found.input_ids, found.attention_mask


@pytest.mark.parametrize("name", FOLDERS)
def test_a_text_has_a_start_an_end_and_is_padded(shared_data, tmp_path, name):
    path, cls = FOLDERS[name]
    tokenizer = cls.from_pretrained(shared_data / "hub_configs" / path)
    ids, mask = tokenizer.batch(TEXTS, 20)
    assert ids.shape == mask.shape == (4, 20) and mask.sum(1)[1] == len(tokenizer.first) + 1
    assert [tokenizer.id("</s>") == row[count - 1] for row, count in zip(ids, mask.sum(1), strict=True)] == [True] * 4
    tokenizer.save_pretrained(tmp_path / "saved")
    again = cls.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.batch(TEXTS).input_ids, tokenizer.batch(TEXTS).input_ids)


def test_the_pieces_of_both_files_are_the_same(shared_data, tmp_path):
    folder = shared_data / "hub_configs" / FOLDERS["t5"][0]
    for file in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(folder / file, tmp_path)
    ours, wanted = fdiff.T5Tokenizer.from_pretrained(tmp_path), fdiff.T5Tokenizer.from_pretrained(folder)
    np.testing.assert_array_equal(ours.batch(TEXTS).input_ids, wanted.batch(TEXTS).input_ids)


@pytest.mark.parity
@pytest.mark.parametrize("name", FOLDERS)
def test_ids_live(shared_data, tmp_path, name):
    path, cls = FOLDERS[name]
    folder = shared_data / "hub_configs" / path
    tokenizer = cls.from_pretrained(folder)
    for one, other in zip(tokenizer.batch(TEXTS, 64), theirs(folder, 64), strict=True):
        np.testing.assert_array_equal(one, other)
    tokenizer.save_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(theirs(tmp_path / "ours", 64)[0], tokenizer.batch(TEXTS, 64).input_ids)


def test_damaged_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="it needs vocab"):
        fdiff.RobertaTokenizer.from_folder(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"\x0a\xff")
    with pytest.raises(ValueError, match="holds the files of a tokenizer, which are damaged"):
        fdiff.T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        fdiff.RobertaTokenizer.from_folder(tmp_path)
