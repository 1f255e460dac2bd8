"""Attention by the kernels of GPUs and TPUs, which keep no scores (Dao et al. 2022), and without them in blocks.

Three primitives, since a kernel is to be chosen when a program is lowered for a device, not when it is traced: tracing
knows no device, and cuDNN's raises where it is not installed. `attend` has a forward mode (`slope`, in blocks), which
the kernels lack, and a backward mode (`pull`), which is theirs; a batch that vmap adds is more samples.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fdiff.models.layers.attention_blocks import Limits, at_once, in_blocks
from fdiff.models.layers.axes import merge, sharded

ACCELERATOR = Limits(2**23, 128, whole=True)  # 32 MB of scores in float32
KEYS = 128  # that few keys, as a prompt has, are no work for a kernel


def fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float) -> jax.Array:
    """softmax(q k^T * scale + mask) v: (b, n, heads, d), (b, m, heads, d) -> (b, n, heads, d), no query fully masked.

    For CUDA by cuDNN, in bfloat16 and float16; for TPUs by JAX's Pallas kernel; otherwise in blocks of queries.
    """
    if sharded(q) or k.shape[1] < KEYS:
        return _plain(q, k, v, *([] if mask is None else [mask]), scale=scale)
    masks = [] if mask is None else [jnp.broadcast_to(mask, (q.shape[0], *mask.shape[1:]))]
    out: jax.Array = attend.bind(q, k, v, *masks, scale=scale)
    return out


def _plain(q: jax.Array, k: jax.Array, v: jax.Array, *masks: jax.Array, scale: float) -> jax.Array:
    mask = masks[0] if masks else None
    if q.shape[0] * q.shape[2] * max(q.shape[1], ACCELERATOR.queries) * k.shape[1] <= ACCELERATOR.scores:
        return at_once(q, k, v, mask, scale)
    return in_blocks(ACCELERATOR, q, k, v, mask, scale)


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, *masks: jax.Array, scale: float) -> jax.Array:
    """By cuDNN, whose heads are multiples of 8 wide. JAX raises where it is not there or does not take these arrays.

    A mask of keys is one more number of each: cuDNN itself would have a mask for each query and key.
    """
    width, bias = q.shape[-1], None
    if masks and masks[0].dtype == bool and masks[0].shape[2] == 1:
        far = jnp.where(masks[0][:, :, 0], 0, -3e4).swapaxes(1, 2)[..., None].astype(k.dtype)
        k = jnp.concatenate([k, jnp.broadcast_to(far, (*k.shape[:3], 1))], axis=-1)
        q = jnp.concatenate([q, jnp.ones_like(q[..., :1])], axis=-1)
    elif masks:
        bias = jnp.where(masks[0], 0, -3e4).astype(q.dtype) if masks[0].dtype == bool else masks[0].astype(q.dtype)
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], q.shape[1], k.shape[1]))
    q, k, v = (jnp.pad(x, (*((0, 0),) * 3, (0, -q.shape[-1] % 8 + q.shape[-1] - x.shape[-1]))) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, bias, scale=scale, implementation="cudnn")[..., :width]


def _pallas(q: jax.Array, k: jax.Array, v: jax.Array, *masks: jax.Array, scale: float) -> jax.Array:
    """By JAX's kernel for TPUs, which takes multiples of 128 tokens; a mask of keys divides them in two segments."""
    from jax.experimental.pallas.ops.tpu import flash_attention as tpu  # the import alone takes a second

    batch, queries, keys, width = *q.shape[:2], k.shape[1], q.shape[-1]
    rows, columns = _block(queries), _block(keys)
    q, k, v = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % block), (0, -width % 128)))
        for x, block in ((q, rows), (k, columns), (v, columns))
    )
    segments = None
    if masks or keys % columns:
        seen = masks[0].reshape(batch, keys) if masks else jnp.ones((batch, keys), bool)
        seen = jnp.pad(seen, ((0, 0), (0, -keys % columns)))
        segments = tpu.SegmentIds(jnp.ones((batch, q.shape[2]), jnp.int32), seen.astype(jnp.int32))
    sizes = tpu.BlockSizes(
        block_q=rows,
        block_k_major=columns,
        block_k=columns,
        block_b=1,
        block_q_major_dkv=rows,
        block_k_major_dkv=columns,
        block_k_dkv=columns,
        block_q_dkv=rows,
        block_k_major_dq=columns,
        block_k_dq=columns,
        block_q_dq=rows,
    )
    out: jax.Array = tpu.flash_attention(q, k, v, segment_ids=segments, sm_scale=scale, block_sizes=sizes)
    return out.swapaxes(1, 2)[:, :queries, :, :width]


def _block(tokens: int) -> int:
    """How many tokens a kernel takes at a time: many, unless that means an eighth more of them."""
    return next(size for size in (512, 256, 128) if size == 128 or -tokens % size <= tokens // 8)


def _takes_cudnn(q: Any, *others: Any) -> bool:
    """Whether GPUs here, if there are any, have flash attention: from compute capability 8.0, Ampere."""
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError:  # lowered for another machine
        return True
    return all(float(gpu.compute_capability) >= 8 for gpu in gpus)


def _takes_pallas(q: Any, k: Any, v: Any, *masks: Any) -> bool:
    """Whether the kernel knows the dtype and the mask."""
    of_keys = all(mask.dtype == bool and mask.shape[1:3] == (1, 1) for mask in masks)
    return q.dtype in (jnp.float32, jnp.bfloat16) and of_keys


def _slope(*arrays: jax.Array, scale: float, active: tuple[int, ...]) -> jax.Array:
    """The derivative of attention along changes of the arrays at those places, which come last."""
    inputs, changes = arrays[: -len(active)], arrays[-len(active) :]
    function, some = _of(partial(_plain, scale=scale), inputs, active)
    return jax.jvp(function, some, changes)[1]


def _pull(kernel: Callable[..., jax.Array], *arrays: jax.Array, scale: float, active: tuple[int, ...]) -> Any:
    """The gradients for the arrays at those places, from that for the result, which comes last."""
    function, some = _of(partial(kernel, scale=scale), arrays[:-1], active)
    return jax.vjp(function, *some)[1](arrays[-1])


def _of(function: Callable[..., Any], arrays: Any, active: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A function of the arrays at those places alone, and these."""

    def of_some(*some: Any) -> Any:
        given = dict(zip(active, some, strict=True))
        return function(*[given.get(i, array) for i, array in enumerate(arrays)])

    return of_some, tuple(arrays[i] for i in active)


attend, slope, pull = Primitive("attend"), Primitive("attend_slope"), Primitive("attend_pull")
pull.multiple_results = True


def _differentiated(arrays: Any, changes: Any, *, scale: float) -> tuple[Any, Any]:
    active = tuple(i for i, change in enumerate(changes) if not isinstance(change, ad.Zero))
    dots = [changes[i] for i in active]
    return attend.bind(*arrays, scale=scale), slope.bind(*arrays, *dots, scale=scale, active=active)


def _transposed(y: Any, *arrays: Any, scale: float, active: tuple[int, ...]) -> list[Any]:
    inputs = arrays[: -len(active)]
    if isinstance(y, ad.Zero):
        return [None] * len(arrays)
    return [*[None] * len(inputs), *pull.bind(*inputs, y, scale=scale, active=active)]


def _as(function: Callable[..., Any]) -> Callable[..., Any]:
    """The derivative of a primitive that stands for that function: the function's."""

    def derivative(arrays: Any, changes: Any, **parameters: Any) -> Any:
        active = [i for i, change in enumerate(changes) if not isinstance(change, ad.Zero)]
        of_some, some = _of(partial(function, **parameters), arrays, active)
        return jax.jvp(of_some, some, tuple(changes[i] for i in active))

    return derivative


def _batched(primitive: Primitive) -> Callable[..., Any]:
    def rule(arrays: Any, axes: Any, **parameters: Any) -> Any:
        size = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
        front = [
            jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(arrays, axes, strict=True)
        ]
        out = primitive.bind(*[merge(x, 0) for x in front], **parameters)
        many = [x.reshape(size, -1, *x.shape[1:]) for x in (out if primitive.multiple_results else [out])]
        return (many, [0] * len(many)) if primitive.multiple_results else (many[0], 0)

    return rule


def _lowered(primitive: Primitive, of: Callable[..., Any]) -> None:
    """Lower the primitive, of(attention, *arrays, **parameters), with the kernel of each platform that has one.

    A program of several devices that JAX divides itself gets none: it cannot divide the TPU's, and cuDNN's only where
    it is told the devices, which it is not in time.
    """

    def by(kernel: Callable[..., Any], takes: Callable[..., bool]) -> Callable[..., Any]:
        def rule(context: Any, *operands: Any, **parameters: Any) -> Any:
            axes = context.module_context.axis_context
            alone = getattr(axes, "num_devices", 1) == 1
            if alone and getattr(axes, "device_assignment", ()) is None:  # cuDNN's wants to see that it is alone
                axes = dataclasses.replace(axes, device_assignment=tuple(jax.local_devices()[:1]))
                context = context.replace(module_context=context.module_context.replace(axis_context=axes))

            def function(*arrays: Any) -> Any:
                chosen = partial(of, kernel, **parameters)
                if alone and takes(*arrays[: len(arrays) - ("active" in parameters)]):
                    try:
                        jax.eval_shape(chosen, *arrays)
                        return chosen(*arrays)
                    except (NotImplementedError, RuntimeError, ValueError):  # JAX's words for one that is not there
                        pass
                return of(_plain, *arrays, **parameters)

            return mlir.lower_fun(function, multiple_results=primitive.multiple_results)(context, *operands)

        return rule

    def plain(*arrays: Any, **parameters: Any) -> Any:
        return of(_plain, *arrays, **parameters)

    primitive.def_impl(plain)
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=primitive.multiple_results))
    mlir.register_lowering(primitive, by(_cudnn, _takes_cudnn), platform="cuda")
    mlir.register_lowering(primitive, by(_pallas, _takes_pallas), platform="tpu")


_lowered(attend, lambda kernel, *arrays, scale: kernel(*arrays, scale=scale))
_lowered(pull, _pull)
slope.def_impl(_slope)
mlir.register_lowering(slope, mlir.lower_fun(_slope, multiple_results=False))

attend.def_abstract_eval(lambda q, k, v, *masks, scale: q.update(dtype=v.dtype))
slope.def_abstract_eval(lambda q, k, v, *others, scale, active: q.update(dtype=v.dtype))
pull.def_abstract_eval(lambda *arrays, scale, active: [arrays[i] for i in active])

ad.primitive_jvps[attend] = _differentiated
ad.primitive_jvps[slope] = _as(_slope)
ad.primitive_jvps[pull] = _as(partial(_pull, _plain))
ad.primitive_transposes[slope] = _transposed
for one in (attend, slope, pull):
    batching.primitive_batchers[one] = _batched(one)
