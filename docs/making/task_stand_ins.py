"""Stand-ins for checkpoints of one task each: that of Stable Diffusion 1.5 with what the task's U-Net sees besides."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from docs.making.stand_ins import files_of, reference, stable_diffusion
from tests.fake_hub import Files

VISION: dict[str, Any] = {
    "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 224,
    "patch_size": 112, "projection_dim": 16,
}  # fmt: skip


def random(shapes: Any) -> Any:
    """A tree of that shape with small random numbers."""
    import jax
    import numpy as np

    draws = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (0.1 * draws.standard_normal(leaf.shape)).astype(np.float32), shapes)


def saved(pipe: Any, params: Any) -> Files:
    """Its repository, or that of a model."""
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(Path(folder) / "saved", params)
        return files_of(Path(folder) / "saved")


def of_task(name: str, *, scheduler: Any = None, vae: Any = None, more: dict[str, Any] | None = None,
            **unet: Any) -> Files:  # fmt: skip
    """The repository of the pipeline of that name, whose U-Net has these options."""
    import fdiff

    base, _ = stable_diffusion()
    network = fdiff.UNet2DConditionModel.from_config({**base.unet.config(), **unet})
    own = {"unet": network, "scheduler": scheduler or base.scheduler, "vae": vae or base.vae}
    cls = getattr(fdiff, name)
    names = {field.name for field in dataclasses.fields(cls)}
    given = {part: value for part, value in {**vars(base), **own, **(more or {})}.items() if part in names}
    models = {part: value for part, value in given.items() if hasattr(value, "shapes")}
    return saved(cls(**given), {part: random(model.shapes()) for part, model in models.items()})


def inpainting() -> Files:
    """It sees a mask, and the picture around it."""
    return of_task("StableDiffusionInpaintPipeline", in_channels=9)


def depth() -> Files:
    """It sees a depth."""
    return of_task("StableDiffusionDepth2ImgPipeline", in_channels=5)


def edits() -> Files:
    """It sees a picture."""
    return of_task("StableDiffusionInstructPix2PixPipeline", in_channels=8)


def upscaler() -> Files:
    """It sees a small picture, and is told how noisy that is; its autoencoder makes four pixels of a latent."""
    import fdiff

    up, down = ("UpDecoderBlock2D",) * 3, ("DownEncoderBlock2D",) * 3
    kinds: dict[str, Any] = {"down_block_types": down, "up_block_types": up}
    vae = fdiff.AutoencoderKL(block_out_channels=(4, 4, 4), layers_per_block=1, norm_num_groups=2, **kinds)
    low = fdiff.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return of_task(
        "StableDiffusionUpscalePipeline", vae=vae, more={"low_res_scheduler": low}, in_channels=7, num_class_embeds=400
    )


def consistent() -> Files:
    """It is told the guidance scale."""
    import fdiff

    scheduler = fdiff.LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return of_task("LatentConsistencyModelPipeline", scheduler=scheduler, time_cond_proj_dim=8)


def variations() -> Files:
    """It attends to what CLIP sees."""
    import fdiff

    encoder = fdiff.CLIPVisionModelWithProjection(**VISION)
    return of_task("StableDiffusionImageVariationPipeline", more={"image_encoder": encoder})


def controlnet() -> Files:
    """A ControlNet for it."""
    import fdiff

    net = fdiff.ControlNetModel(
        block_out_channels=(8,), layers_per_block=2, norm_num_groups=4, attention_head_dim=2, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D",), conditioning_embedding_out_channels=(4, 4, 4, 4),
    )  # fmt: skip
    return saved(net, random(net.shapes()))


def t2i_adapter() -> Files:
    """A T2I-Adapter for it."""
    import fdiff

    net = fdiff.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=8)
    return saved(net, random(net.shapes()))


def ip_adapter() -> Files:
    """An IP-Adapter for it, and the encoder of what it sees."""
    import jax

    import fdiff
    from convert import unet_order, weights
    from convert.safetensors import Array, write

    encoder = fdiff.CLIPVisionModelWithProjection(**VISION)
    wide, seen = stable_diffusion()[0].unet.cross_attention_dim, VISION["projection_dim"]
    layers = {name: array.shape for name, array in weights.arrays(stable_diffusion()[1]["unet"]).items()}
    shapes = {"image_proj.proj.weight": (4 * wide, seen), "image_proj.proj.bias": (4 * wide,)}
    shapes |= {f"image_proj.norm.{name}": (wide,) for name in ("weight", "bias")}
    for i, block in enumerate(unet_order.transformer_blocks(layers)):
        for name in ("to_k", "to_v"):
            shapes[f"ip_adapter.{2 * i + 1}.{name}_ip.weight"] = layers[f"{block}.attn2.{name}.weight"]
    arrays = random({name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()})
    with tempfile.TemporaryDirectory() as folder:
        encoder.save_pretrained(Path(folder) / "models" / "image_encoder", random(encoder.shapes()))
        tensors = {name: Array(x.shape, x.dtype, partial(arrays.get, name)) for name, x in arrays.items()}
        write(Path(folder) / "models" / "ip-adapter_sd15.safetensors", tensors)
        return files_of(Path(folder))


def faces() -> Files:
    """A latent diffusion without texts."""
    return reference("pipelines/ldm")


REPOSITORIES: dict[str, Callable[[], Files]] = {
    "stable-diffusion-v1-5/stable-diffusion-inpainting": inpainting,
    "stabilityai/stable-diffusion-2-depth": depth,
    "stabilityai/stable-diffusion-x4-upscaler": upscaler,
    "timbrooks/instruct-pix2pix": edits,
    "SimianLuo/LCM_Dreamshaper_v7": consistent,
    "lambdalabs/sd-image-variations-diffusers": variations,
    "lllyasviel/control_v11p_sd15_canny": controlnet,
    "TencentARC/t2iadapter_canny_sd15v2": t2i_adapter,
    "h94/IP-Adapter": ip_adapter,
    "CompVis/ldm-celebahq-256": faces,
}
