"""Qwen's tokenizer and its template, alone and beside transformers."""

import json
import random
import shutil

import numpy as np
import pytest

import fdiff
from tests.tokenizers import tiny
from tests.tokenizers.test_clip import make_texts

FOLDER = "hub_configs/Tongyi-MAI/Z-Image-Turbo/tokenizer"
KLEIN = "hub_configs/black-forest-labs/FLUX.2-klein-4B/tokenizer"


@pytest.fixture
def folder(tmp_path):
    return tiny.qwen(tmp_path / "tiny", model_max_length=24)


def test_pairs_stay_within_words(folder, caplog):
    tokenizer = fdiff.Qwen2Tokenizer.from_pretrained(folder)
    number = {piece: i for i, piece in enumerate(tiny.pieces())}

    def pieces(text, *wanted):
        assert tokenizer.ids(text) == [number[piece] for piece in wanted], text

    pieces("cat  cat", "cat", "\u0120", "\u0120cat")
    pieces("cat'll 12", "cat", "'ll", "\u0120", "1", "2")
    pieces("x\n\n cat<think>", "x", "\u010a", "\u010a", "\u0120cat", "<think>")
    assert tokenizer.decode(tokenizer.ids("a cat's 12\n <|im_end|>")) == "a cat's 12\n <|im_end|>"
    ids, mask = tokenizer.batch(["cat", "cat" * 30])
    assert ids.shape == (2, 24) and ids[0].tolist() == [number["cat"]] + 23 * [number["<|endoftext|>"]]
    assert mask.sum(1).tolist() == [1, 24]
    assert caplog.messages == [
        f"the prompt has 30 tokens and the text encoder reads 24; this is cut off: {'cat' * 6!r}"
    ]


def test_a_prompt_is_what_a_user_says(folder, tmp_path):
    tokenizer = fdiff.Qwen2Tokenizer.from_pretrained(folder)
    asked = "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat("a cat", thinking=True) == asked
    assert tokenizer.chat("a cat", thinking=False) == asked + "<think>\n\n</think>\n\n"
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    silent = fdiff.Qwen2Tokenizer.from_pretrained(folder)  # whose template cannot leave thoughts out
    assert silent.chat("a cat", thinking=False) == asked
    for one in (tokenizer, silent):
        one.save_pretrained(tmp_path / "saved")
        again = fdiff.Qwen2Tokenizer.from_pretrained(tmp_path / "saved")
        assert again == one and again.ids(asked) == one.ids(asked)


def test_files_that_do_not_fit_are_told(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"][str(tiny.pieces().index(tiny.ADDED[0]))]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="holds the files of a tokenizer, which are damaged"):
        fdiff.Qwen2Tokenizer.from_folder(folder)
    del config["added_tokens_decoder"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    older = {token: tiny.pieces().index(token) for token in tiny.ADDED}
    (folder / "added_tokens.json").write_text(json.dumps(older))
    assert fdiff.Qwen2Tokenizer.from_folder(folder).id("</think>") == older["</think>"]
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"it needs vocab.json and merges.txt"):
        fdiff.Qwen2Tokenizer.from_folder(folder)


def test_the_numbers_of_the_real_vocabulary(shared_data):
    tokenizer = fdiff.Qwen2Tokenizer.from_pretrained(shared_data / FOLDER)
    assert len(tokenizer) == 151669 and tokenizer.model_max_length == 131072
    assert tokenizer.ids("Hello world!") == [9707, 1879, 0]
    asked = tokenizer.ids(tokenizer.chat("", thinking=False))
    assert asked == [151644, 872, 198, 151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271]


def texts():
    """A thousand: those of CLIP's test, and what Qwen's pattern tells apart."""
    rng = random.Random(1)
    parts = (
        "I'll", "WE'RE", "don't", "'S", "\u2019s", "12345", "3.14", "\u4f60\u597d\uff0c\u4e16\u754c", "\n", "\r\n\r\n",
        " ", "   ", "\t", "...!!\n", "e\u0301", "\ufb01", "\u1112\u1161\u11ab", "\U0001f468\u200d\U0001f469\u200d",
        "<|im_end|>", "<think>", "</think>", "<|im_start|>user\n", "\u216b\u00bd", "_x_", "\u3000", "\xa0", "\x85",
        "\u0627\u0644\u0639", "\u0939\u093f\u0928\u094d\u0926\u0940", "<tool_response>x</tool_response>", "\x00",
        "\u017f",
    )  # fmt: skip
    return make_texts(600) + ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(400)]


@pytest.mark.parity
def test_a_thousand_texts_live(shared_data, tmp_path):
    """Z-Image's files, those of klein, and ours in transformers, each with its template."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(shared_data / KLEIN, tmp_path / "klein")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(shared_data / FOLDER / name, tmp_path / "klein")
    for folder in (shared_data / FOLDER, tmp_path / "klein"):
        theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), fdiff.Qwen2Tokenizer.from_pretrained(folder)
        for text in texts():
            assert ours.ids(text) == theirs(text).input_ids, text
            for thinking in (True, False):
                asked = theirs.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True,
                    enable_thinking=thinking,
                )  # fmt: skip
                assert ours.chat(text, thinking=thinking) == asked
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    some = texts()[::5]
    wanted = back([ours.chat(text, thinking=False) for text in some], padding="max_length", truncation=True,
                  max_length=64, return_tensors="np")  # fmt: skip
    found = ours.batch([ours.chat(text, thinking=False) for text in some], 64)
    np.testing.assert_array_equal(found.input_ids, wanted.input_ids)
    np.testing.assert_array_equal(found.attention_mask, wanted.attention_mask)
    said = back.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert said == "<|im_start|>user\na<|im_end|>\n"
    theirs.save_pretrained(tmp_path / "theirs")
    assert fdiff.Qwen2Tokenizer.from_pretrained(tmp_path / "theirs").ids("a\n <think>") == ours.ids("a\n <think>")


@pytest.mark.parity
def test_a_token_that_a_checkpoint_puts_behind_each_text_live(shared_data, tmp_path):
    """As Qwen3-Embedding's tokenizer.json does; transformers cuts before it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, processors

    fdiff.Qwen2Tokenizer.from_pretrained(shared_data / FOLDER).save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 151643)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), fdiff.Qwen2Tokenizer.from_pretrained(tmp_path)
    given = ["a red cat", "a " * 20, ""]
    wanted = theirs(given, padding="max_length", truncation=True, max_length=8, return_tensors="np")
    found = ours.batch(given, 8)
    np.testing.assert_array_equal(found.input_ids, wanted.input_ids)
    np.testing.assert_array_equal(found.attention_mask, wanted.attention_mask)
