"""MoleculeGNN, the network of GeoDiff."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Count, Factor, Layers, OneOf
from fdiff.models.layers.activations import FUNCTIONS
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.model import Model

KINDS = 100  # of atoms and of edges that the tables have a row for
LONGEST_ROW = 10.0  # of SchNet's table


class MoleculeGNN(Model):
    """Positions of atoms (b, n, 3) of a graph -> the noise in them (b, n, 3), by graph field networks.

        a_ij = mlp(d_ij) * emb(kind_ij)                          of edges: local ones and pairs nearer than the cutoff
        s_ij = mlp(h_i * h_j, a_ij)                              h by SchNet over all edges, by GIN over local ones
        out_i = -2 (sum_local s_ij + w_global sum_other s'_ij) (x_i - x_j) / d_ij

    (Xu et al. 2022, eq. 5 to 7; the 2 since each edge counts in both directions). The other edges count only below a
    noise of `global_start_sigma`, and their sum is cut to a length of `clip_global`. Turns and mirrors of the input are
    those of the output, permutations too, and shifts change nothing. All sizes up to n are one program.

    Args of `__call__`: x; t, which the network does not read; numbers (b, n), atomic numbers, 0 where there is no
    atom; edges (b, n, n), the kinds of local edges, 0 for none, see `fdiff.molecules.Graph`; sigma, the noise over the
    signal in x, a number or (b,).
    """

    hidden_dim: Count = 128
    num_convs: Layers = 6
    num_convs_local: Layers = 4
    cutoff: Factor = 10.0
    mlp_act: Activation = "relu"
    edge_order: Layers = 3
    edge_encoder: Annotated[str, OneOf(("mlp",))] = "mlp"
    smooth_conv: bool = True

    ignored_keys: ClassVar[tuple[str, ...]] = (
        "type", "network", "beta_schedule", "beta_start", "beta_end", "num_diffusion_timesteps",
    )  # fmt: skip

    def example_inputs(self) -> tuple[Any, ...]:
        x = np.array([[[0, 0, 0], [0, 0, 1]]], np.float32)
        return x, np.float32(0), np.ones((1, 2), np.int32), np.array([[[0, 1], [1, 0]]], np.int32)

    @nn.compact
    def __call__(
        self, x: jax.Array, t: jax.Array, numbers: jax.Array, edges: jax.Array, sigma: Any = 0.0,
        w_global: Any = 1.0, global_start_sigma: Any = 0.5, clip_global: Any = 1000.0,
    ) -> jax.Array:  # fmt: skip
        there = numbers > 0
        pairs = there[:, :, None] & there[:, None] & ~np.eye(numbers.shape[1], dtype=bool)
        squares = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
        distances = jnp.sqrt(jnp.where(pairs, squares, 1.0))
        local = (pairs & (edges > 0)).astype(x.dtype)
        near = (pairs & (distances <= self.cutoff)).astype(x.dtype)
        lengths = Perceptron((self.hidden_dim,) * 2, self.mlp_act, name="edge_encoder_global.mlp")(distances[..., None])
        attributes = lengths * Embed(KINDS, self.hidden_dim, name="edge_encoder_global.bond_emb")(edges)

        def scores(h: jax.Array, name: str) -> jax.Array:
            known = jnp.concatenate([h[:, :, None] * h[:, None], attributes], -1)
            widths = self.hidden_dim, self.hidden_dim // 2, 1
            return Perceptron(widths, self.mlp_act, name=name)(known)[..., 0]

        far = SchNet(self.hidden_dim, self.num_convs, self.cutoff, self.smooth_conv, name="encoder_global")
        of_far = scores(far(numbers, attributes, distances, near), "grad_global_dist_mlp") * near * (1 - local)
        of_near = GIN(self.hidden_dim, self.num_convs_local, name="encoder_local")(numbers, attributes, local)
        of_local = scores(of_near, "grad_local_dist_mlp") * local
        begun = jnp.reshape(jnp.asarray(sigma) < global_start_sigma, (-1, 1, 1))
        others = jnp.where(begun, _clipped(_field(x, of_far, distances), clip_global), 0)
        return -(_field(x, of_local, distances) + w_global * others) * there[..., None]


def _field(x: jax.Array, scores: jax.Array, distances: jax.Array) -> jax.Array:
    """2 sum_j s_ij (x_i - x_j) / d_ij, without the differences of all pairs; 0 for two atoms in one place."""
    weights = 2 * scores / jnp.maximum(distances, 1e-12)
    return weights.sum(-1, keepdims=True) * x - jnp.matmul(weights, x, precision="highest")


def _clipped(vectors: jax.Array, longest: Any) -> jax.Array:
    lengths = jnp.sqrt((vectors**2).sum(-1, keepdims=True) + 1e-24)  # whose slope at 0 is a number
    return vectors * jnp.minimum(longest / lengths, 1)


class Perceptron(nn.Module):
    """Linear maps with an activation between them."""

    widths: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = Linear(width, name=f"layers.{i}")(FUNCTIONS[self.activation](x) if i else x)
        return x


class SchNet(nn.Module):
    """What atoms hear of all near ones, through filters that the edges give (Schütt et al. 2017, eq. 2)."""

    features: int
    layers: int
    cutoff: float
    smooth: bool

    @nn.compact
    def __call__(
        self, numbers: jax.Array, attributes: jax.Array, distances: jax.Array, near: jax.Array
    ) -> jax.Array:
        h = Embed(KINDS, self.features, name="embedding")(numbers)
        h *= jnp.minimum(1, LONGEST_ROW / (jnp.linalg.norm(h, axis=-1, keepdims=True) + 1e-7))  # torch's max_norm
        reach = near * (0.5 * (jnp.cos(distances * jnp.pi / self.cutoff) + 1) if self.smooth else 1)
        for i in range(self.layers):
            at = f"interactions.{i}"
            filters = shifted_softplus(Linear(self.features, name=f"{at}.conv.nn.0")(attributes))
            filters = Linear(self.features, name=f"{at}.conv.nn.2")(filters) * reach[..., None]
            sent = Linear(self.features, use_bias=False, name=f"{at}.conv.lin1")(h)
            heard = Linear(self.features, name=f"{at}.conv.lin2")(jnp.einsum("bijf,bjf->bif", filters, sent))
            h += Linear(self.features, name=f"{at}.lin")(shifted_softplus(heard))
        return h


class GIN(nn.Module):
    """What atoms hear of those that local edges join them to (Hu et al. 2020, with edges as there)."""

    features: int
    layers: int

    @nn.compact
    def __call__(self, numbers: jax.Array, attributes: jax.Array, local: jax.Array) -> jax.Array:
        h = Embed(KINDS, self.features, name="node_emb")(numbers)
        for i in range(self.layers):
            heard = (jax.nn.relu(h[:, None] + attributes) * local[..., None]).sum(2) + h
            heard = Perceptron((self.features,) * 2, "relu", name=f"convs.{i}.nn")(heard)
            h += jax.nn.relu(heard) if i + 1 < self.layers else heard
        return h


def shifted_softplus(x: jax.Array) -> jax.Array:
    """log(1 + e^x) - log 2, 0 at 0."""
    return jax.nn.softplus(x) - np.log(2).astype(np.float32)
