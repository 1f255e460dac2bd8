"""Single-file checkpoints of Stable Diffusion and of diffusion transformers, taken apart into the Hub's components."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import families, gguf, original, original_tables, original_transformers, transformer_families, views
from convert.tensors import Tensor, check_floating

Parts = dict[str, dict[str, Tensor]]  # component -> name of today -> tensor


def _as_it_is(name: str) -> str:
    return name


# Where a component's tensors are in the file, and how their names are translated.
PLACES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("model.diffusion_model.", "unet", original.unet),
    ("control_model.", "controlnet", original.unet),
    ("first_stage_model.", "vae", original.vae),
    ("vae.", "vae", original.vae),
    ("cond_stage_model.transformer.", "text_encoder", _as_it_is),
    ("cond_stage_model.model.", "text_encoder", original.openclip),
    ("conditioner.embedders.0.transformer.", "text_encoder", _as_it_is),
    ("conditioner.embedders.0.model.", "text_encoder_2", original.openclip),
    ("conditioner.embedders.1.model.", "text_encoder_2", original.openclip),
)

# Where a transformer is in the file: ComfyUI's whole checkpoints, its parts of one, and the files of the authors.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
ENCODER = re.compile(r"text_encoders\.(\w+)\.(?:transformer\.)?(.+)")  # its name in whole checkpoints, and a tensor's
HEADLESS = ("gemma2_2b",)  # a whole language model there, and the part of it without a head on the Hub
PROJECTION = "text_projection.weight"  # of CLIP: a pair of texts and pictures has it, what reads a text alone may not

# Files of one component have no prefix: it is known by a tensor that only that component has.
ALONE = {
    "input_hint_block.0.weight": "control_model.",
    "controlnet_cond_embedding.conv_in.weight": "control_model.",
    "input_blocks.0.0.weight": "model.diffusion_model.",
    "encoder.conv_in.weight": "first_stage_model.",
    "encoder.conv1.weight": "first_stage_model.",  # of Wan and Qwen-Image
    "conv_in.weight": "model.diffusion_model.",
}

# What says how a network was trained: `family` reads it.
EDM_BOUNDS = ("edm_vpred.sigma_max", "edm_vpred.sigma_min")
MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", *EDM_BOUNDS)

# Of Qwen-Image-Edit since 2511: the network is told the time 0 with the pictures to keep to.
TOLD_STILL = "__index_timestep_zero__"

# What is in such files and in no model: every name is here, so that nothing else is lost in silence.
NO_WEIGHTS = re.compile(
    # the numbers of DDPM, which a scheduler computes anew
    r"betas|(sqrt_|sqrt_one_minus_|log_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod|alphas_cumprod_prev"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|logvar|lvlb_weights|denoiser\.sigmas"
    # what training an autoencoder or a word needs
    r"|(first_stage_model\.)?loss\.(logvar|discriminator\.main\.\d+\.\w+"
    r"|perceptual_loss\.(lin\d\.model\.1\.weight|scaling_layer\.\w+|net\.slice\d\.\d+\.\w+))"
    r"|embedding_manager\.(string_to_param_dict|initial_embeddings)\..*"
    # buffers of text encoders, and what the first one of SD 1.x and SDXL has of the pair that it was trained in
    r"|(cond_stage_model|conditioner\.embedders\.\d)\.(.*\.)?(position_ids|logit_scale|attn_mask)"
    r"|(cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?text_projection(\.weight)?"
    # averages, which are read where they are asked for
    r"|model_ema\.\w+"
)
# The same of transformers: a norm that Z-Image does not use, and what FLUX.3 was trained with.
NO_WEIGHTS_OF_TRANSFORMERS = re.compile(rf"norm_final\.weight|repa_projectors\..+|{TOLD_STILL}")
NO_WEIGHTS_OF_ENCODERS = re.compile(r"(.*\.)?(position_ids|logit_scale|spiece_model)")
AVERAGE = "model_ema."  # and the name of a tensor without its dots

# The linear maps of AutoencoderKL's attention.
ATTENTION = re.compile(r"\.mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight$")

# OpenCLIP's encoder in SD 2.x: what is behind the last but one layer is not used, and the Hub leaves it out.
SD2_UNUSED = re.compile(r"cond_stage_model\.model\.(transformer\.resblocks\.23\..*|text_projection(\.weight)?)")


def parts(found: Mapping[str, Tensor], *, file: str | Path, ema: bool = False) -> Parts:
    """The components in a file, each tensor under its name of today.

    ema: take the averaged weights of the U-Net, which some files hold beside those of the last step.
    Raises ValueError for a tensor that no component has, of another shape or there twice, and without any; `file` is
    what the error names.
    """
    found = {name: tensor for name, tensor in found.items() if name not in MARKERS}
    for start in PREFIXES:
        for mark, table in original_tables.FILES.items():
            if start + mark in found:
                return _of_transformer(found, start, table, file, ema)
    prefix = next((prefix for name, prefix in ALONE.items() if name in found), "")
    full = {prefix + name: tensor for name, tensor in found.items()}
    components: Parts = {}
    for name, tensor in full.items():
        if NO_WEIGHTS.fullmatch(name.removeprefix(prefix)) or SD2_UNUSED.fullmatch(name):
            continue
        place = next((place for place in PLACES if name.startswith(place[0])), None)
        if place is None:
            raise _unknown(name, file)
        if ema and place[1] == "unet":
            averaged = AVERAGE + name.removeprefix("model.").replace(".", "")
            if averaged not in full:
                raise ValueError(f"{file} has no averaged weights of {name}; leave ema out.")
            tensor = full[averaged]
        _put(components.setdefault(place[1], {}), place, name, tensor, file)
    if not components:
        raise ValueError(f"{file} holds no weights of a Stable Diffusion model; download or copy it again.")
    return components


def _unknown(name: str, file: str | Path) -> ValueError:
    kind = gguf.architecture(Path(file))
    return ValueError(
        f"{file} holds {name}, which is no part of Stable Diffusion 1.x, 2.x or SDXL, nor of a transformer that fdiff "
        f"reads from one file{f', but of the architecture {kind}' if kind else ''}; look for the model in the Hub's "
        "layout instead."
    )


def _put(
    part: dict[str, Tensor], place: tuple[str, str, Callable[[str], str]], name: str, tensor: Tensor, file: str | Path
) -> None:
    """Put a tensor of a file where it belongs. ValueError for a shape that it cannot have, and where it is twice."""
    start, component, translated = place
    made = _relaid(name, translated(name.removeprefix(start)), tensor)
    if made is None:
        raise ValueError(f"{name} in {file} has shape {tensor.shape}, which it cannot have; download it again.")
    if twice := sorted(made.keys() & part.keys()):
        raise ValueError(f"{file} holds {twice[0]} of the {component} twice, also as {name}; keep one of the two.")
    part.update(made)


def _of_transformer(
    found: Mapping[str, Tensor], start: str, table: original_tables.Table, file: str | Path, ema: bool
) -> Parts:
    """The components in a file with a transformer, whose names begin so and are of that table."""
    if ema:
        raise ValueError(f"{file} has no averaged weights, which transformers are not given with; leave ema out.")
    own = {name.removeprefix(start): tensor for name, tensor in found.items() if name.startswith(start)}
    own = {name: tensor for name, tensor in own.items() if not NO_WEIGHTS_OF_TRANSFORMERS.fullmatch(name)}
    try:
        components: Parts = {"transformer": original_transformers.parameters(own, table)}
        kind = transformer_families.kind(components["transformer"])
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).rstrip('.')}; download or copy it again.") from error
    for name, tensor in found.items():
        if name.startswith(start):
            continue
        encoder = ENCODER.fullmatch(name)
        if encoder and encoder[1] in kind.encoders:
            if not NO_WEIGHTS_OF_ENCODERS.fullmatch(encoder[2]):
                inner = encoder[2].removeprefix("model.") if encoder[1] in HEADLESS else encoder[2]
                components.setdefault(kind.encoders[encoder[1]], {})[inner] = tensor
            continue
        place = next((place for place in PLACES if place[1] == "vae" and name.startswith(place[0])), None)
        if place is None:
            raise _unknown(name, file)
        _put(components.setdefault("vae", {}), place, name, tensor, file)
    for name, part in components.items():
        if name.startswith("text_encoder"):
            _project(part, kind.models.get(name, ("", {}))[0])
    return components


def _project(encoder: dict[str, Tensor], cls: str) -> None:
    """Give CLIP the projection that its class has: a file without one means that nothing is projected."""
    positions = encoder.get("text_model.embeddings.position_embedding.weight")
    if positions is None:
        return
    if cls == families.TEXT:
        encoder.pop(PROJECTION, None)
    elif PROJECTION not in encoder and len(positions.shape) == 2:
        width, dtype = positions.shape[1], positions.dtype
        eye: Any = views.Made(positions.file, dtype, (width, width), lambda: np.eye(width, dtype=dtype))
        encoder[PROJECTION] = eye


def _relaid(old: str, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """A tensor as models of today have it: under one name, or three where it holds three; None for a bad shape."""
    if name.endswith((".in_proj_weight", ".in_proj_bias")):
        module, _, leaf = name.rpartition(".in_proj_")
        if not tensor.shape or tensor.shape[0] % 3:
            return None
        size = tensor.shape[0] // 3
        return {
            f"{module}.{which}_proj.{leaf}": views.rows(tensor, i * size, (i + 1) * size)
            for i, which in enumerate("qkv")
        }
    if old.endswith(".text_projection"):  # OpenCLIP multiplies from the other side
        return {name: views.permuted(tensor, (1, 0))} if len(tensor.shape) == 2 else None
    if ATTENTION.search(name) and len(tensor.shape) > 2:
        bare = set(tensor.shape[2:]) == {1}  # a 1x1 convolution, which is a linear map
        return {name: views.squeezed(tensor, 2)} if bare else None
    return {name: tensor}


def family(
    found: Mapping[str, Tensor], components: Parts, *, file: str | Path, prediction_type: str | None = None
) -> families.Family:
    """What a file with these tensors and components is; see `families.family` for what cannot be known.

    prediction_type: "epsilon" or "v_prediction", for files of SD 2.x with 512 pixels or 768, and for others
    whose tensors do not say it. Raises ValueError for a file of another kind.
    """
    if prediction_type not in (None, "epsilon", "v_prediction"):
        raise ValueError(f"prediction_type is {prediction_type!r}; it must be epsilon or v_prediction.")
    if "transformer" in components:
        return _transformer_family(found, components, file)
    v_prediction = None if prediction_type is None else prediction_type == "v_prediction"
    if v_prediction is None and "v_pred" in found:
        v_prediction = True
    said = families.Said(v_prediction, "ztsnr" in found)
    if "edm_mean" in found or "edm_std" in found:  # of Playground 2.5
        mean = _numbers(found, "edm_mean", file, 4)
        std = _numbers(found, "edm_std", file, 4, positive=True)
        said = said._replace(edm=families.PLAYGROUND, latents={"latents_mean": mean, "latents_std": std})
    elif names := [name for name in EDM_BOUNDS if name in found]:  # of CosXL
        (high,) = _numbers(found, EDM_BOUNDS[0], file, 1, positive=True)
        (low,) = _numbers(found, EDM_BOUNDS[1], file, 1, positive=True) if EDM_BOUNDS[1] in names else (0.002,)
        if low >= high:
            raise ValueError(f"{file} says that its noise goes from {low:g} to {high:g}; download or copy it again.")
        said = said._replace(edm=families.edm(low, high, v_prediction))
    try:
        return families.family(components, said)
    except ValueError as error:
        raise ValueError(f"{file} is of no kind that fdiff reads: {error}.") from error


def _transformer_family(found: Mapping[str, Tensor], components: Parts, file: str | Path) -> families.Family:
    try:
        family = transformer_families.family(components)
    except ValueError as error:
        hub = transformer_families.kind(components["transformer"]).hub
        raise ValueError(f"{file} does not say how its models are built ({error}); pass config=, a folder or a Hub id "
                         f"that does, such as {hub}.") from error
    if any(name.removeprefix(prefix) == TOLD_STILL for name in found for prefix in PREFIXES):
        cls, config = family.models["transformer"]
        told = {**family.models, "transformer": (cls, {**config, "zero_cond_t": True})}
        return family._replace(pipeline="QwenImageEditPlusPipeline", models=told)
    return family


def _numbers(
    found: Mapping[str, Tensor], name: str, file: str | Path, count: int, positive: bool = False
) -> list[float]:
    """The numbers of a marker. ValueError unless there are so many, all finite and, if it is said, positive."""
    if name not in found:
        raise ValueError(f"{file} lacks {name}, without which its other markers mean nothing; download it again.")
    check_floating(name, found[name], file)
    if math.prod(found[name].shape) != count:
        raise ValueError(f"{name} in {file} has shape {found[name].shape}, not {count} numbers; download it again.")
    numbers = [float(number) for number in found[name].read().flat]
    if not all(math.isfinite(number) and (number > 0 or not positive) for number in numbers):
        kind = "positive" if positive else "finite"
        raise ValueError(f"{name} in {file} is {numbers}, which are no {kind} numbers; download or copy it again.")
    return numbers
