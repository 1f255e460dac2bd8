import json
import random
import shutil

import pytest

from fdiff.tokenizers import CLIPTokenizer
from tests.convert import fuzz

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz     ",
    "ABCDEFGH'sdtlvmre ",
    "0123456789 .,:;!?()[]{}\\/-_+=*&^%$#@~`\"'<>|",
    "éèêàçüößñøåÉÀŠŁıİſΣςΩ ",
    "日本語漢字かなカナ한국어中文，。！",
    "😀👍🏽👨‍👩‍👧‍👦🇫🇷❤️🏳️‍🌈✈ ",
    "\t\n\r\x00\x01\x07\x0b\x0c\x1b\x7f\x85\xa0\u200b\u200d\ufeff\u2028\u2029\u3000\u00ad\u0301\u0327a e",
    "ﬁﬀⅷ①½²㎏ａＡ नमस्ते สวัสดี مرحبا שלום",
    "\U0010ffff\U000e0001\ue000\ufffd ",
)
WORDS = ("<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "!", "!!", "'s", "don't", "</w>", "a photo of ")


def make_texts(count: int) -> list[str]:
    """Texts of every kind, some far too long; the same ones each time."""
    rng = random.Random(0)
    texts = ["", " ", "\n", "a" * 3000]
    while len(texts) < count:
        alphabets = rng.sample(ALPHABETS, rng.randint(1, 4))
        length = rng.choice((1, 3, 10, 40, 150, 500))
        parts = []
        while sum(map(len, parts)) < length:
            parts.append(rng.choice(WORDS) if rng.random() < 0.05 else rng.choice(rng.choice(alphabets)))
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_ids(reference, name):
    saved = json.loads((reference / "clip" / "ids.json").read_text())
    tokenizer = CLIPTokenizer.from_folder(reference / "clip" / name)
    start, end = tokenizer.id(tokenizer.bos_token), tokenizer.id(tokenizer.eos_token)
    for text, expected in zip(saved["texts"], saved[name], strict=True):
        assert [start, *tokenizer.ids(text), end] == expected, text


def test_special_tokens_come_from_the_files(reference):
    first = CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    second = CLIPTokenizer.from_folder(reference / "clip" / "tokenizer_2")
    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
    assert first.model_max_length == 77
    assert first.ids("hi!")[-1] == first.vocab["!</w>"]
    assert second.ids("hi!")[-1] == 0  # a special token wherever it stands


def test_a_length_that_nobody_gave_is_that_of_clip(reference, tmp_path):
    shutil.copytree(reference / "clip" / "tokenizer", tmp_path / "tokenizer")
    file = tmp_path / "tokenizer" / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"model_max_length": 10**30}
    file.write_text(json.dumps(config))
    assert CLIPTokenizer.from_folder(file.parent).model_max_length == 77


def test_a_folder_of_one_file(reference, tmp_path):
    """tokenizer.json alone, in both of the ways that merges are written."""
    slow = CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    for merges in (list(slow.merges), [" ".join(pair) for pair in slow.merges]):
        added = [{"id": slow.id(token.content), **token._asdict()} for token in slow.added]
        whole = {"model": {"type": "BPE", "vocab": slow.vocab, "merges": merges}, "added_tokens": added}
        (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
        fast = CLIPTokenizer.from_folder(tmp_path)
        for text in make_texts(60):
            assert fast.ids(text) == slow.ids(text)


def test_concepts_are_new_tokens(reference, tmp_path):
    tokenizer = CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    size = len(tokenizer)
    taught = tokenizer.with_concept("<cat-toy>", 3).with_concept("<style>")
    a, b = tokenizer.ids("a"), tokenizer.ids(", b")
    assert taught.ids("a <cat-toy>, b<Style>") == [*a, size, size + 1, size + 2, *b, size + 3]
    assert len(taught) == size + 4
    assert len(tokenizer) == size
    assert tokenizer.ids("<style>") != [size + 3]
    taught.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_folder(tmp_path)
    for text in ("a <cat-toy>, b<Style>", "<cat-toy>_1"):
        assert again.ids(text) == taught.ids(text)
    with pytest.raises(ValueError, match="knows '<style>' already"):
        taught.with_concept("<style>")


def test_decoding(reference):
    tokenizer = CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    assert tokenizer.decode(tokenizer.ids("A  Cat, on the Moon 😀")) == "a cat , on the moon 😀"


def test_a_repository_has_it_in_a_folder(reference):
    inside = CLIPTokenizer.from_pretrained(reference / "clip", subfolder="tokenizer_2")
    assert inside.pad_token == "!"
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer_config\.json"):
        CLIPTokenizer.from_pretrained(reference / "clip", subfolder="text_encoder")


def test_bad_folders_and_prompts_are_told(reference, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        CLIPTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')
    with pytest.raises(ValueError, match="Unigram"):
        CLIPTokenizer.from_folder(tmp_path)
    with pytest.raises(ValueError, match="a prompt must be a string, not int"):
        CLIPTokenizer.from_folder(reference / "clip" / "tokenizer").ids(3)
    with pytest.raises(ValueError, match="holds a lone surrogate"):
        CLIPTokenizer.from_folder(reference / "clip" / "tokenizer").ids("a \ud83d cat")


VARIANTS = (
    "runwayml/stable-diffusion-v1-5/tokenizer",
    "stabilityai/stable-diffusion-2-1/tokenizer",
    "stabilityai/stable-diffusion-xl-base-1.0/tokenizer_2",
    "stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_2",
    "playgroundai/playground-v2.5-1024px-aesthetic/tokenizer",
)


@pytest.mark.parity
def test_a_thousand_texts_live(shared_data, tmp_path):
    """CLIP's own vocabulary, with the special tokens of several repositories."""
    transformers = pytest.importorskip("transformers")
    configs, texts = shared_data / "hub_configs", make_texts(1000)
    for variant in VARIANTS:
        folder = tmp_path / variant
        shutil.copytree(configs / variant, folder)
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(configs / VARIANTS[0] / name, folder / name)
        theirs, ours = transformers.CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_folder(folder)
        theirs.add_tokens(["<toy>"])
        ours = ours.with_concept("<toy>")
        start, end = ours.id(ours.bos_token), ours.id(ours.eos_token)
        for text in [*texts, "a <toy>!<TOY>x"]:
            assert [start, *ours.ids(text), end] == theirs(text).input_ids, (variant, text)
        assert ours.id(ours.pad_token) == theirs.pad_token_id
        theirs.save_pretrained(folder / "saved")
        again = CLIPTokenizer.from_folder(folder / "saved")
        ours.save_pretrained(folder / "ours")
        back = transformers.CLIPTokenizer.from_pretrained(folder / "ours")
        for text in texts[:200]:
            assert again.ids(text) == ours.ids(text) == back(text).input_ids[1:-1], (variant, text)


def test_damaged_files_are_one_sentence(reference, tmp_path):
    """Each JSON with a part replaced, left out or renamed, and each file with changed bytes."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(reference / "clip" / "tokenizer", folder)
    CLIPTokenizer.from_folder(folder).save_pretrained(folder)
    whole = {file: file.read_bytes() for file in folder.iterdir()}
    refused = 0
    for seed in range(200):
        rng = random.Random(seed)
        file = rng.choice(list(whole))
        file.write_bytes(fuzz.damaged(rng, file.name, whole[file]))
        try:
            CLIPTokenizer.from_folder(folder).ids("a photo of a cat")
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            told = str(error)
            assert told.startswith(str(folder)) and told.endswith(".") and len(told.splitlines()) == 1, (seed, told)
        file.write_bytes(whole[file])
    assert 50 < refused < 200
