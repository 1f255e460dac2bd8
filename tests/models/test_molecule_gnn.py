"""MoleculeGNN: what turning the molecule must do, and GeoDiff's network written down in torch, edge by edge."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models import MoleculeGNN
from fdiff.molecules.bonded import edge_kinds

CHAIN = np.diag(np.ones(4, int), 1) + np.diag(np.ones(4, int), -1)  # five atoms in a row
CHAIN[1, 2] = CHAIN[2, 1] = 2


@pytest.fixture(scope="module")
def small():
    """A network, and a chain of five atoms and one of four in places for six, some of them beyond the cutoff."""
    model = MoleculeGNN(hidden_dim=8, num_convs=2, num_convs_local=2, cutoff=2.5)
    params = model.init_params(jax.random.key(0))
    numbers = np.array([[6, 6, 8, 1, 1, 0], [7, 6, 1, 1, 0, 0]])
    edges = np.zeros((2, 6, 6), int)
    edges[0, :5, :5], edges[1, :4, :4] = edge_kinds(CHAIN, 3), edge_kinds(CHAIN[:4, :4], 3)
    x = jax.random.normal(jax.random.key(1), (2, 6, 3)) * 1.5 * (numbers > 0)[..., None]
    apply = jax.jit(lambda x, numbers, edges, sigma: model.apply({"params": params}, x, 0, numbers, edges, sigma))
    return apply, x, numbers, edges


def test_turns_mirrors_and_permutations_go_through_and_shifts_do_nothing(small):
    apply, x, numbers, edges = small
    out = np.asarray(apply(x, numbers, edges, 0.1))
    assert np.abs(out[numbers > 0]).min() > 1e-4 and np.abs(out[numbers == 0]).max() == 0
    size = np.abs(out).max()
    assert np.abs(out.sum(1)).max() < 1e-5 * size
    rng = np.random.default_rng(0)
    for determinant in (1, -1):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn)) * determinant
        assert np.abs(apply(x @ turn, numbers, edges, 0.1) - out @ turn).max() < 1e-4 * size
    assert np.abs(apply(x + jnp.array([3.0, -2, 1]), numbers, edges, 0.1) - out).max() < 1e-4 * size
    order = rng.permutation(6)
    mixed = apply(x[:, order], numbers[:, order], edges[:, order][:, :, order], 0.1)
    assert np.abs(mixed - out[:, order]).max() < 1e-4 * size
    assert np.isfinite(jax.grad(lambda x: (apply(x, numbers, edges, 0.1) ** 2).sum())(x)).all()


def test_atoms_that_no_edge_joins_count_below_a_noise_and_up_to_the_cutoff(small):
    """Of two atoms without a bond, each is moved along the line between them, or not at all."""
    apply, x, numbers, edges = small
    alone, pair = np.where(numbers > 0, numbers, 0) * (np.arange(6) < 2), x * (np.arange(6) < 2)[:, None]
    for apart, sigma, moved in ((1.0, 0.1, True), (1.0, 0.6, False), (3.0, 0.1, False)):
        placed = pair.at[:, 0].set(0.0).at[:, 1].set(jnp.array([0, 0, apart]))
        out = np.asarray(apply(placed, alone, 0 * edges, jnp.full(2, sigma)))
        assert (np.abs(out[:, :2, 2]).min() > 1e-5) == moved and np.abs(out[..., :2]).max() == 0
        assert np.allclose(out[:, 0], -out[:, 1])


def _in_torch(hidden, convs, convs_local, cutoff, smooth):
    """GeoDiff's network (Xu et al. 2022), its modules under the names of its checkpoints."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def perceptron(*widths):
        made = nn.Module()
        made.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        return made

    def through(mlp, x):
        for i, layer in enumerate(mlp.layers):
            x = layer(F.relu(x) if i else x)
        return x

    def encoder():
        made = nn.Module()
        made.bond_emb, made.mlp = nn.Embedding(100, hidden), perceptron(1, hidden, hidden)
        return made

    class Shifted(nn.Module):
        def forward(self, x):
            return F.softplus(x) - np.log(2)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.edge_encoder_global, self.edge_encoder_local = encoder(), encoder()
            self.encoder_global, self.encoder_local = nn.Module(), nn.Module()
            self.encoder_global.embedding = nn.Embedding(100, hidden, max_norm=10.0)
            self.encoder_global.interactions = nn.ModuleList()
            for _ in range(convs):
                block, conv = nn.Module(), nn.Module()
                conv.lin1, conv.lin2 = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden)
                conv.nn = nn.Sequential(nn.Linear(hidden, hidden), Shifted(), nn.Linear(hidden, hidden))
                block.conv, block.lin = conv, nn.Linear(hidden, hidden)
                self.encoder_global.interactions.append(block)
            self.encoder_local.node_emb = nn.Embedding(100, hidden)
            self.encoder_local.convs = nn.ModuleList()
            for _ in range(convs_local):
                conv = nn.Module()
                conv.nn = perceptron(hidden, hidden, hidden)
                conv.register_buffer("eps", torch.zeros(1))
                self.encoder_local.convs.append(conv)
            self.grad_global_dist_mlp = perceptron(2 * hidden, hidden, hidden // 2, 1)
            self.grad_local_dist_mlp = perceptron(2 * hidden, hidden, hidden // 2, 1)
            self.model_global = nn.ModuleList(
                [self.edge_encoder_global, self.encoder_global, self.grad_global_dist_mlp]
            )
            self.model_local = nn.ModuleList([self.edge_encoder_local, self.encoder_local, self.grad_local_dist_mlp])
            self.betas = nn.Parameter(torch.linspace(1e-7, 2e-3, 20), requires_grad=False)

        @torch.no_grad()
        def forward(self, x, numbers, edges, sigma, w_global, clip):
            n = len(x)
            apart = torch.cdist(x, x)
            row, column = torch.where(((edges > 0) | (apart <= cutoff)) & ~torch.eye(n, dtype=torch.bool))
            kind, length = edges[row, column], apart[row, column][:, None]
            local = kind > 0
            a = through(self.edge_encoder_global.mlp, length) * self.edge_encoder_global.bond_emb(kind)
            h = self.encoder_global.embedding(numbers)
            reach = (0.5 * (torch.cos(length * np.pi / cutoff) + 1) if smooth else 1) * (length <= cutoff)
            for block in self.encoder_global.interactions:
                sent = block.conv.lin1(h)[row] * block.conv.nn(a) * reach
                heard = torch.zeros_like(h).index_add(0, column, sent)
                h = h + block.lin(F.softplus(block.conv.lin2(heard)) - np.log(2))
            of_global = through(self.grad_global_dist_mlp, torch.cat([h[row] * h[column], a], 1)) * ~local[:, None]
            row_l, column_l, a_l = row[local], column[local], a[local]
            h = self.encoder_local.node_emb(numbers)
            for i, conv in enumerate(self.encoder_local.convs):
                heard = torch.zeros_like(h).index_add(0, column_l, F.relu(h[row_l] + a_l)) + h
                heard = through(conv.nn, heard)
                h = h + (F.relu(heard) if i + 1 < convs_local else heard)
            of_local = through(self.grad_local_dist_mlp, torch.cat([h[row_l] * h[column_l], a_l], 1))

            def field(scores, row, column):
                pull = scores * (x[row] - x[column]) / apart[row, column][:, None]
                return torch.zeros_like(x).index_add(0, row, pull).index_add(0, column, -pull)

            near, far = field(of_local, row_l, column_l), field(of_global, row, column)
            far = far * torch.clamp(clip / far.norm(dim=-1, keepdim=True), max=1)
            return -(near + w_global * far) if sigma < 0.5 else -near

    return Network()


@pytest.mark.parity
@pytest.mark.parametrize(("smooth", "sigma", "clip"), [(True, 0.1, 1000.0), (False, 0.1, 0.05), (True, 0.7, 1000.0)])
def test_a_checkpoint_gives_what_torch_gives(tmp_path, smooth, sigma, clip):
    """A .bin file as GeoDiff's are, tensors of two names, betas and buffers in it; rows longer than 10 are cut."""
    import torch

    torch.manual_seed(0)
    theirs = _in_torch(128, 3, 2, 4.0, smooth)
    torch.save(theirs.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({
        "_class_name": "MoleculeGNN", "hidden_dim": 128, "num_convs": 3, "num_convs_local": 2, "cutoff": 4.0,
        "smooth_conv": smooth, "type": "diffusion", "network": "dualenc", "beta_schedule": "sigmoid",
        "beta_start": 1e-7, "beta_end": 2e-3, "num_diffusion_timesteps": 5000,
    }))  # fmt: skip
    model, params = MoleculeGNN.from_pretrained(tmp_path)
    assert model.count_parameters() == 100 * 128 * 3 + sum(
        value.numel() for name, value in theirs.state_dict().items()
        if "emb" not in name and not name.startswith(("model_", "edge_encoder_local", "betas")) and "eps" not in name
    )
    rng = np.random.default_rng(1)
    numbers, bonds = np.array([6, 8, 7, 1, 1, 9, 6]), np.diag(np.array([1, 2, 12, 1, 1, 3]), 1)
    edges = edge_kinds(bonds + bonds.T, 3)
    x = rng.normal(size=(7, 3)).astype(np.float32) * 2.5
    expected = theirs(*map(torch.from_numpy, (x, numbers, edges)), sigma, 0.5, clip).numpy()
    found = model.apply({"params": params}, x[None], 0, numbers[None], edges[None], sigma, 0.5, clip_global=clip)[0]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
