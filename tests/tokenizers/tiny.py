"""A tokenizer of Qwen's kind whose pieces are bytes, few words and the tokens of its template."""

import json

ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
WORDS = ("ca", "cat", "\u0120cat", "ll", "'ll")
PAIRS = ("c a", "ca t", "\u0120 cat", "l l", "' ll")
TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def pieces():
    """All of them, in the order of their numbers."""
    from tokenizers.pre_tokenizers import ByteLevel

    return (*sorted(ByteLevel.alphabet()), *WORDS, *ADDED)


def qwen(folder, **config):
    """The folder with vocab.json, merges.txt and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    number = {piece: i for i, piece in enumerate(pieces())}
    added = {number[token]: {"content": token, "special": "|" in token, "normalized": False} for token in ADDED}
    (folder / "vocab.json").write_text(json.dumps({one: i for one, i in number.items() if one not in ADDED}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(PAIRS) + "\n")
    told = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "chat_template": TEMPLATE,
            "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": None, **config}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>", "[SYSTEM_PROMPT]",
           "[/SYSTEM_PROMPT]")  # fmt: skip


def mistral(folder, **config):
    """The folder with tokenizer.json and tokenizer_config.json of a tokenizer like Mistral's: bytes and few words."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    letters = [piece for piece in pieces() if piece not in ADDED]
    vocab = {piece: i for i, piece in enumerate([*MISTRAL, *letters])}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [tuple(pair.split()) for pair in PAIRS]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(MISTRAL))
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", vocab["<s>"])])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "model_max_length": 10**30, **config}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
LETTERS = [chr(code) for code in range(33, 127)]
JOINED = ("\u2581 c", "a t", "\u2581c at")


def gemma_vocab():
    """All pieces, in the order of their numbers: bytes, letters and few words."""
    words = [pair.replace(" ", "") for pair in JOINED]
    return [*GEMMA, *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *LETTERS, *words]


def gemma(folder, **config):
    """The folder with tokenizer.json and tokenizer_config.json of a tokenizer like Gemma's."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    vocab = {piece: i for i, piece in enumerate(gemma_vocab())}
    merges = [tuple(pair.split()) for pair in JOINED]
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(list(GEMMA))
    backend.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B", [("<bos>", vocab["<bos>"])])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>",
            "unk_token": "<unk>", "model_max_length": 10**30, "add_bos_token": True, **config}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder
