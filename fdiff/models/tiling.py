"""Autoencoders in less memory: large pictures and long sounds tile by tile, batches one picture at a time.

decode = lambda latents: vae.apply({"params": params}, latents, method="decode")
pictures = sliced(decode, latents)
picture = tiled_decode(vae, params, latents)
sound = decode_in_parts(oobleck, params, latents)
video = decode_frames(wan, params, latents)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdiff.models.autoencoder_dc import AutoencoderDC
from fdiff.models.autoencoder_kl import AutoencoderKL
from fdiff.models.autoencoder_kl_wan import WanAutoencoder
from fdiff.models.autoencoder_oobleck import AutoencoderOobleck
from fdiff.models.layers.vae import DiagonalGaussian, diagonal_gaussian

OVERLAP = 0.25  # of the length of a tile, as on the Hub
TILE = 512  # pixels, as AutoencoderDC's are on the Hub
LATENTS = 1024  # of a part of a sound: all that Stable Audio makes


def sliced(function: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """function(x), computed for one sample of the batch at a time."""
    return jax.lax.map(lambda one: jax.tree.map(lambda y: y[0], function(one[None])), x)


def tiled_decode(
    model: AutoencoderKL | AutoencoderDC, params: Any, latents: jax.Array, tile_size: int | None = None
) -> jax.Array:
    """The pictures of latents, decoded in square tiles of `tile_size` pixels that overlap by a quarter.

    tile_size is the sample_size of the model if not given, or 512 where it has none. Where pictures are no larger than
    that, this is `decode`. The result differs from `decode`'s a little, since a tile does not see the others.
    """
    pixels, size = _tile_sizes(model, tile_size)

    def decode(x: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x, method="decode"))

    return tiled(decode, latents, size, pixels)


def tiled_encode(
    model: AutoencoderKL, params: Any, sample: jax.Array, tile_size: int | None = None
) -> DiagonalGaussian:
    """The distribution of the latents of pictures, encoded in tiles; see `tiled_decode`."""
    pixels, size = _tile_sizes(model, tile_size)

    def moments(x: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x, method="moments"))

    return diagonal_gaussian(tiled(moments, sample, pixels, size))


def decode_in_parts(
    model: AutoencoderOobleck, params: Any, latents: jax.Array, size: int | None = LATENTS
) -> jax.Array:
    """The sounds (b, n hop_length, c) of latents (b, n, c), `size` of them at a time, in the memory of so many.

    This is `decode` but for rounding: each part is decoded with all latents around it that it depends on
    (`AutoencoderOobleck.reach`), and nothing has to fade. size: None decodes all at once, and so do odd ratios, of
    whose samples some are missing.

    Raises ValueError for a size that leaves nothing between what is around a part.
    """
    reach, length = model.reach, latents.shape[1]
    if size is not None and size <= 2 * reach:
        raise ValueError(f"parts of {size} latents are too small; choose at least {2 * reach + 1}, or None.")

    def decode(x: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x, method="decode"))

    if size is None or length <= size or any(ratio % 2 for ratio in model.downsampling_ratios):
        return decode(latents)
    count = -(-(length - 2 * reach) // (size - 2 * reach))
    starts = [min(i * (size - 2 * reach), length - size) for i in range(count)]
    parts = jax.lax.map(
        lambda start: decode(jax.lax.dynamic_slice_in_dim(latents, start, size, 1)), jnp.asarray(starts)
    )
    ends = [*(start + size - reach for start in starts[:-1]), length]
    hop = model.hop_length
    return jnp.concatenate([
        part[:, (begin - start) * hop : (end - start) * hop]
        for part, start, begin, end in zip(parts, starts, [0, *ends], ends, strict=False)
    ], axis=1)


def decode_frames(model: WanAutoencoder, params: Any, latents: jax.Array) -> jax.Array:
    """The videos (b, 1 + k n, H, W, c) of latents (b, 1 + n, h, w, z_dim), one after the other.

    This is `decode` but for rounding, in the memory of one latent.
    """
    return _in_turn(model, params, latents, 1, "decode")


def encode_frames(model: WanAutoencoder, params: Any, sample: jax.Array) -> DiagonalGaussian:
    """The distribution of the latents of videos (b, 1 + k n, h, w, c), k frames after the others; see `decode_frames`.

    Raises ValueError for numbers of frames that are none such.
    """
    if (sample.shape[1] - 1) % model.frames_of_latent:
        raise ValueError(f"A video of {sample.shape[1]} frames must have one, or one and a multiple of "
                         f"{model.frames_of_latent}.")
    return diagonal_gaussian(_in_turn(model, params, sample, model.frames_of_latent, "moments"))


def _in_turn(model: WanAutoencoder, params: Any, x: jax.Array, size: int, method: str) -> jax.Array:
    """The method on the first frame of x, and then on `size` frames at a time, with what its layers have seen."""

    def part(cache: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        y, cache = model.apply({"params": params, **cache}, x, method=method, mutable=["cache"])
        return cache, jnp.asarray(y)

    cache, first = part({}, x[:, :1])
    if x.shape[1] == 1:
        return first
    parts = x[:, 1:].reshape(len(x), -1, size, *x.shape[2:]).swapaxes(0, 1)
    _, rest = jax.lax.scan(part, cache, parts)
    rest = rest.swapaxes(0, 1)
    return jnp.concatenate([first, rest.reshape(len(x), -1, *rest.shape[3:])], axis=1)


def tiled(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    size: int,
    out_size: int,
    overlap: float = OVERLAP,
) -> jax.Array:
    """function(x) for x (b, h, w, c), from overlapping square tiles that fade into one another.

    A tile is `size` long in x and `out_size` in the result; those at the bottom and at the right are as long
    as what is left. Tiles of equal shape are computed by one loop, so that at most four shapes compile.
    """
    height, width = x.shape[1:3]
    if height <= size and width <= size:
        return function(x)
    step, fade = int(size * (1 - overlap)), int(out_size * overlap)
    corners = [[(i, j) for j in range(0, width, step)] for i in range(0, height, step)]
    tiles = {corner: x[:, corner[0] :, corner[1] :][:, :size, :size] for row in corners for corner in row}
    for shape in {tile.shape for tile in tiles.values()}:
        alike = [corner for corner, tile in tiles.items() if tile.shape == shape]
        results = jax.lax.map(function, jnp.stack([tiles[corner] for corner in alike]))
        tiles |= dict(zip(alike, results, strict=True))

    rows = []
    for i, row in enumerate(corners):
        for j, corner in enumerate(row):
            if i > 0:
                tiles[corner] = faded(tiles[corners[i - 1][j]], tiles[corner], fade, 1)
            if j > 0:
                tiles[corner] = faded(tiles[row[j - 1]], tiles[corner], fade, 2)
        limit = out_size - fade
        rows.append(jnp.concatenate([tiles[corner][:, :limit, :limit] for corner in row], axis=2))
    return jnp.concatenate(rows, axis=1)


def faded(before: jax.Array, after: jax.Array, extent: int, axis: int) -> jax.Array:
    """`after`, whose first `extent` rows (axis 1) or columns (axis 2) fade from the last ones of `before`."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    weight = (jnp.arange(extent) / extent).reshape([-1 if i == axis else 1 for i in range(4)])
    last = jax.lax.slice_in_dim(before, before.shape[axis] - extent, None, axis=axis)
    first, rest = jnp.split(after, [extent], axis=axis)
    mixed = last * (1 - weight) + first * weight
    return jnp.concatenate([mixed.astype(after.dtype), rest], axis=axis)


def _tile_sizes(model: AutoencoderKL | AutoencoderDC, tile_size: int | None) -> tuple[int, int]:
    """The length of a tile in pixels and in latents."""
    deep = isinstance(model, AutoencoderDC)
    sample = TILE if deep else model.sample_size
    pixels = tile_size or (sample if isinstance(sample, int) else sample[0])
    factor = 2 ** (len(model.decoder_block_out_channels if deep else model.block_out_channels) - 1)
    if pixels // factor < 4:
        raise ValueError(f"tile_size {pixels} is too small; choose at least {4 * factor}.")
    return pixels, pixels // factor
