"""EGNNModel, the network of E(3) equivariant diffusion of molecules."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Depth, Factor, Layers, Shift
from fdiff.models.layers.linear import Linear, uniform
from fdiff.models.layers.parameter import parameter
from fdiff.models.model import Model

small = nn.initializers.variance_scaling(1e-6, "fan_avg", "uniform")  # Xavier's, with a gain of 0.001


class EGNNModel(Model):
    """Positions and features of atoms (b, n, 3 + in_features), mask (b, n), t -> what they predict, of the same shape.

        m_ij = attention(m) m,  m = edge_mlp(h_i, h_j, d_ij^2, d0_ij^2)          messages of all pairs but i = j
        h_i  = h_i + node_mlp(h_i, sum_j m_ij / c)
        x_i  = x_i + sum_j (x_i - x_j) / (d_ij + norm_constant) coords_range tanh(w_ij) / c
        w_ij = coord_mlp(h_i, h_j, d_ij^2, d0_ij^2)

    The positions of the output are those that the layers moved to less those at first, free of their mean; d0 are the
    distances at first. Turns, mirrors and permutations of the input are those of the output, and shifts change nothing
    (Satorras et al. 2021, eq. 3 to 6; Hoogeboom et al. 2022, eq. 12 and 13). All sizes up to n are one program: where
    there is no atom the output is 0, and the other atoms do not see it.

    Args of `__call__`: x; t, a number or (b,), as the scheduler tells it; mask; context (b, n, context_features) or
    None, what else is known of each atom, such as properties of the molecule.
    """

    in_features: Channels = 6
    context_features: Depth = 0
    hidden_features: Count = 256
    num_layers: Layers = 9
    num_sublayers: Layers = 1
    attention: bool = True
    tanh: bool = True
    coords_range: Factor = 15.0
    norm_constant: Shift = 1.0
    normalization_factor: Factor = 1.0

    def example_inputs(self) -> tuple[Any, ...]:
        context = np.zeros((1, 2, self.context_features), np.float32) if self.context_features else None
        return np.zeros((1, 2, 3 + self.in_features), np.float32), np.float32(0), np.ones((1, 2), bool), context

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, mask: jax.Array, context: jax.Array | None = None) -> jax.Array:
        there = mask[..., None].astype(x.dtype)
        x = x * there
        first, h = x[..., :3], x[..., 3:]
        time = jnp.broadcast_to(jnp.reshape(t, (-1, 1, 1)), (*h.shape[:2], 1)).astype(h.dtype)
        if (context is not None) != bool(self.context_features):
            raise ValueError(f"the network takes a context of {self.context_features} features and "
                             f"{'none' if context is None else 'one'} is given")
        h = jnp.concatenate([h, time, *([] if context is None else [context.astype(h.dtype)])], -1)
        pairs = (mask[:, :, None] & mask[:, None, :] & ~np.eye(mask.shape[1], dtype=bool)).astype(x.dtype)
        scale = 1 / self.normalization_factor
        positions, squares_0 = first, _squares(first)
        h = Linear(self.hidden_features, name="embedding")(h)
        for i in range(self.num_layers):
            h, positions = Block(
                self.hidden_features, self.num_sublayers, self.attention, self.tanh, self.coords_range,
                self.norm_constant, scale, name=f"e_block_{i}",
            )(h, positions, squares_0, pairs, there)  # fmt: skip
        features = Linear(self.in_features + 1 + self.context_features, name="embedding_out")(h) * there
        return jnp.concatenate([centred(positions - first, mask), features[..., : self.in_features]], -1)


def centred(positions: jax.Array, mask: jax.Array) -> jax.Array:
    """Positions (b, n, 3) less the mean of those of atoms, 0 where mask (b, n) has none: a linear projection."""
    there = mask[..., None].astype(positions.dtype)
    mean = (positions * there).sum(-2, keepdims=True) / jnp.maximum(there.sum(-2, keepdims=True), 1)
    return (positions - mean) * there


class Block(nn.Module):
    """Layers that exchange messages, and one that moves the atoms."""

    features: int
    sublayers: int
    attention: bool
    tanh: bool
    coords_range: float
    norm_constant: float
    scale: float  # of the sum over atoms

    @nn.compact
    def __call__(
        self, h: jax.Array, x: jax.Array, squares_0: jax.Array, pairs: jax.Array, there: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        squares = _squares(x)
        edges = jnp.stack([squares, squares_0], -1)
        for i in range(self.sublayers):
            h = Messages(self.features, self.attention, self.scale, name=f"gcl_{i}")(h, edges, pairs) * there
        moves = Moves(self.features, name="gcl_equiv")(h, edges)
        moves = (self.coords_range * jnp.tanh(moves) if self.tanh else moves) * pairs
        weights = moves / (jnp.sqrt(squares + 1e-8) + self.norm_constant) * self.scale
        # sum_j w_ij (x_i - x_j), without the differences of all pairs
        moved = weights.sum(-1, keepdims=True) * x - jnp.matmul(weights, x, precision="highest")
        return h, (x + moved) * there


class Messages(nn.Module):
    """What each atom hears of all others, added to what it is."""

    features: int
    attention: bool
    scale: float

    @nn.compact
    def __call__(self, h: jax.Array, edges: jax.Array, pairs: jax.Array) -> jax.Array:
        m = nn.silu(OfPairs(self.features, name="edge_mlp.0")(h, edges))
        m = nn.silu(Linear(self.features, name="edge_mlp.2")(_rows(m)))
        weights = pairs * self.scale
        if self.attention:
            weights = weights * nn.sigmoid(Linear(1, name="att_mlp.0")(m)).reshape(pairs.shape)
        heard = jnp.einsum("bij,bijf->bif", weights, m.reshape(*pairs.shape, -1))
        changed = nn.silu(Linear(self.features, name="node_mlp.0")(jnp.concatenate([h, heard], -1)))
        return h + Linear(self.features, name="node_mlp.2")(changed)


class Moves(nn.Module):
    """How far each atom is drawn to each other: (b, n, n)."""

    features: int

    @nn.compact
    def __call__(self, h: jax.Array, edges: jax.Array) -> jax.Array:
        m = nn.silu(OfPairs(self.features, name="coord_mlp.0")(h, edges))
        m = nn.silu(Linear(self.features, name="coord_mlp.2")(_rows(m)))
        kernel = Last(name="coord_mlp.4")(self.features)
        return jnp.dot(m, kernel.astype(m.dtype)).reshape(edges.shape[:-1])


class Last(nn.Module):
    """A small matrix without bias, so that a new network moves nothing at first."""

    @nn.compact
    def __call__(self, features: int) -> jax.Array:
        return parameter(self, "kernel", small, (features, 1))


class OfPairs(nn.Module):
    """A linear map of (h_i, h_j, edges_ij) for all pairs: (b, n, in), (b, n, n, e) -> (b, n, n, features).

    The parts of h are mapped atom by atom and added pair by pair, which is a third of the work of a block.
    """

    features: int

    @nn.compact
    def __call__(self, h: jax.Array, edges: jax.Array) -> jax.Array:
        width, extra = h.shape[-1], edges.shape[-1]
        kernel = parameter(self, "kernel", uniform, (2 * width + extra, self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        h, edges = h.astype(kernel.dtype), edges.astype(kernel.dtype)
        own, other = jnp.dot(h, kernel[:width]) + bias, jnp.dot(h, kernel[width : 2 * width])
        of_edges = sum(edges[..., k, None] * kernel[2 * width + k] for k in range(extra))
        return own[:, :, None] + other[:, None] + of_edges


def _rows(x: jax.Array) -> jax.Array:
    """All pairs of all samples as one matrix (pairs, features), whose gradient XLA multiplies faster on a CPU."""
    return x.reshape(-1, x.shape[-1])


def _squares(x: jax.Array) -> jax.Array:
    """The squared distances of all pairs: (b, n, 3) -> (b, n, n)."""
    return ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
