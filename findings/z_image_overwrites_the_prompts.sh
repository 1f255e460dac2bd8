#!/usr/bin/env bash
# Z-Image's pipelines put each prompt into a chat template before the text encoder reads it. One would guess that a list of
# prompts that is handed in stays as it was, as it does in diffusers' other pipelines. It does not: the templated texts are written into
# the caller's own list. So a loop that draws one list with several seeds or steps draws another picture each time, since the
# second call reads a template within a template, and a sheet labelled from that list shows the templates. Negative prompts
# likewise. A single string is safe, and so is handing in list(prompts). Who compares samplers or another library with this
# pipeline must give each call a list of its own.
# diffusers 0.42.1, transformers 5.23.0, torch 2.13.0 (pipelines/z_image/pipeline_z_image.py). Seen: after one call the list holds
# "<|user|>a cat<|end|>", after a second one that text within the template again, and the embeddings of the two calls differ in length.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

torch.manual_seed(0)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
core.add_special_tokens(["<|user|>", "<|end|>"])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|end|>")
tokenizer.chat_template = "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
encoder = Qwen3Model(Qwen3Config(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8,
))
pipe = ZImagePipeline(FlowMatchEulerDiscreteScheduler(), None, encoder, tokenizer, None)
prompts, unlike = ["a cat"], ["a dog"]
lengths = []
for _ in range(2):
    positive, _ = pipe.encode_prompt(prompts, negative_prompt=unlike, do_classifier_free_guidance=True)
    lengths.append(len(positive[0]))
    print(prompts, unlike, lengths[-1], "tokens")
assert prompts == ["<|user|><|user|>a cat<|end|><|end|>"] and unlike == ["<|user|><|user|>a dog<|end|><|end|>"]
assert lengths[1] == lengths[0] + 2
text, before = "a cat", list(prompts)
pipe.encode_prompt(text, do_classifier_free_guidance=False)
pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False)
assert text == "a cat" and prompts == before
PYTHON
echo "the caller's prompts are overwritten"
