"""Words learned by textual inversion as torch saves them, and what diffusers' text encoder makes of them."""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PROMPTS = ["a photo of <toy> on a boat", "<toy> and <wide> horse", "the wide-style cat"]


def make(folder: Path) -> None:
    """Files of diffusers and of A1111's web UI, for the text encoder in tests/reference/clip."""
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    one, three, two = (0.5 * torch.randn(shape) for shape in ((32,), (3, 32), (2, 32)))
    torch.save({"<toy>": one}, folder / "learned_embeds.bin")
    torch.save({"<wide>": three.half()}, folder / "wide.bin")
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": two.requires_grad_()}, "name": "wide-style"}
    torch.save(a1111 | {"step": 500, "sd_checkpoint": None, "sd_checkpoint_name": None}, folder / "style.pt")

    tokenizer = CLIPTokenizer.from_pretrained(HERE / "clip" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(HERE / "clip" / "text_encoder").float()
    others = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, **others, requires_safety_checker=False
    )
    for name in ("learned_embeds.bin", "wide.bin", "style.pt"):
        pipe.load_textual_inversion(folder, weight_name=name)
    prompts = pipe.maybe_convert_prompt(PROMPTS, tokenizer)
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = text_encoder(ids).last_hidden_state[:, :16]  # padding follows
    arrays = {"prompts": np.array(PROMPTS), "ids": ids.numpy().astype(np.int32), "states": states.numpy()}
    np.savez_compressed(folder / "expected.npz", **arrays)
