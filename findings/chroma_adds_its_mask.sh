#!/usr/bin/env bash
# Chroma's pipeline makes a mask of the prompt's tokens that is to hide all padding but the first. One would guess that what is
# masked does not touch the picture. It does: the mask is made in the text encoder's dtype, as 0 and 1, and attention takes a mask
# that is not boolean for numbers to add to the scores. So nothing is hidden; pairs of tokens that are seen get 1 more, which
# weighs them e times the others, and every other embedding of padding (up to 512 tokens long) keeps a part of each picture.
# Who ports Chroma, trains a LoRA with a boolean mask or compares attention backends gets other pictures than this pipeline from
# the same weights and noise, and max_sequence_length changes them too. prompt_attention_mask.bool(), handed in, hides the tokens.
# diffusers 0.42.1, transformers 5.23.0, torch 2.13.0 (pipelines/chroma/pipeline_chroma.py, _get_t5_prompt_embeds;
# models/transformers/transformer_chroma.py). Seen, for a tiny random model: other values in the masked tokens alone move the
# latents by 1.6 % with the pipeline's own mask, by nothing at all with the same mask as booleans; the two masks are 1.6 % apart.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import AutoencoderKL, ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

torch.manual_seed(0)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
core.add_special_tokens(["<pad>"])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)).eval()
transformer = ChromaTransformer2DModel(
    in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=32,
    approximator_layers=1,
).eval()
vae = AutoencoderKL(block_out_channels=(4,), latent_channels=4, norm_num_groups=1)
pipe = ChromaPipeline(FlowMatchEulerDiscreteScheduler(), vae, encoder, tokenizer, transformer)
pipe.set_progress_bar_config(disable=True)

embeddings, _, mask, *_ = pipe.encode_prompt("a cat", do_classifier_free_guidance=False, max_sequence_length=32)
assert mask.dtype == torch.float32 and mask.unique().tolist() == [0, 1] and mask.sum() == 6  # 5 letters, one padding
masked = mask[..., None] == 0
others = torch.where(masked, torch.randn_like(embeddings), embeddings)


def drawn(embeddings, mask):
    return pipe(
        prompt_embeds=embeddings, prompt_attention_mask=mask, guidance_scale=1.0, height=16, width=16,
        num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent",
    ).images


def change(mask):
    before, after = drawn(embeddings, mask), drawn(others, mask)
    return ((after - before).norm() / before.norm()).item()


as_given, as_bool = change(mask), change(mask.bool())
print(f"only masked tokens differ: float mask {as_given:.1%} of the picture, bool mask {as_bool:.1%}")
apart = (drawn(embeddings, mask) - drawn(embeddings, mask.bool())).norm() / drawn(embeddings, mask).norm()
print(f"one prompt, float and bool mask: {apart.item():.1%} apart")
assert as_given > 0.01 and as_bool == 0 and apart > 0.01
PYTHON
echo "Chroma's masked tokens are seen"
