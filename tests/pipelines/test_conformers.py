"""Conformers of a molecule: the graphs that are read, the run, what is written and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import molecules, sampling
from fdiff.cli import main
from fdiff.molecules import Graph
from fdiff.molecules.bonded import edge_kinds
from fdiff.pipelines.conformers import atoms_of, denoiser, from_key

SCHEDULE = {"beta_schedule": "sigmoid", "beta_start": 1e-3, "beta_end": 0.2, "clip_sample": False}
BONDS = np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]])
WATER = Graph(np.array([8, 1, 1]), BONDS, np.zeros(3, int), BONDS)


@pytest.fixture(scope="module")
def small():
    pipe = fdiff.ConformerPipeline(
        fdiff.MoleculeGNN(hidden_dim=8, num_convs=1, num_convs_local=2),
        fdiff.DDPMScheduler(num_train_timesteps=20, **SCHEDULE),
    )
    return pipe, {"model": pipe.model.init_params(jax.random.key(0))}


def drawn(small, molecule=WATER, **options):
    pipe, params = small
    asked = {"batch_size": 2, "num_inference_steps": 4, "progress": False, "key": jax.random.key(1)}
    return pipe(params, molecule, **{**asked, **options}).molecules


def test_a_smiles_is_a_graph_with_its_hydrogens():
    """Ethanol's bonds and hops; benzene's bonds are aromatic, and one and two by turns; charges are kept."""
    pytest.importorskip("rdkit")
    ethanol = molecules.graph("CCO")
    assert ethanol.numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1] and ethanol.bonds.sum() == 2 * 8
    kinds = edge_kinds(ethanol.bonds, 3)
    assert [kinds[0, 1], kinds[0, 2], kinds[0, 8], kinds[3, 8]] == [1, 23, 24, 0]  # the last is that of the oxygen
    assert (kinds == kinds.T).all() and edge_kinds(ethanol.bonds, 1).max() == 1
    ring = molecules.graph("c1ccccc1")
    assert (ring.bonds[:6, :6].sum(1) == 24).all() and (ring.orders[:6, :6].sum(1) == 3).all()
    assert molecules.graph("[NH4+]").charges.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(("molecule", "said"), [
    ("C(", "'C(', which is no SMILES"), ("", "which is no SMILES"),
    ("two.sdf", "holds 2 molecules; give a file of one"),
    ("ase.sdf", "ase.sdf says 3 atoms and no bonds"),
    ("odd.sdf", "is no .sdf file of a molecule that chemistry allows"),
    (WATER._replace(numbers=np.array([8, 1])), "they must be (n,), (n, n), (n,) and (n, n)"),
    (WATER._replace(bonds=np.triu(BONDS)), "its bonds symmetric"),
])  # fmt: skip
def test_what_is_no_graph_is_refused_in_a_sentence(tmp_path, monkeypatch, molecule, said):
    pytest.importorskip("rdkit")
    monkeypatch.chdir(tmp_path)
    water = molecules.molecule([[0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], "OHH")
    molecules.write("two.sdf", molecules.concatenate([water, water]))
    text = (tmp_path / "two.sdf").read_text().split("$$$$")[0].replace("  3  2  0", "  3  0  0")
    lines = [line for line in text.splitlines() if not line.endswith("  1  0  0  0  0")]
    (tmp_path / "ase.sdf").write_text("\n".join([*lines, "$$$$", ""]))  # ASE writes no bonds
    (tmp_path / "odd.sdf").write_text("1\n\nH 0 0 0\n")
    with pytest.raises(ValueError) as error:
        molecules.graph(molecule)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_conformers_have_the_atoms_and_bonds_of_the_graph(small):
    """They lie around 0, each as its own key says; a second run compiles nothing."""
    pipe, params = small
    each = jax.random.split(jax.random.key(2), 3)
    some = drawn(small, batch_size=3, key=each)
    others = drawn(small, batch_size=3, key=each[jnp.array([2, 0, 1])])
    assert np.abs(some.positions.sum(1)).max() < 1e-4 and np.isfinite(some.positions).all()
    assert np.abs(others.positions - some.positions[[2, 0, 1]]).max() < 1e-4
    assert (some.numbers == WATER.numbers).all() and (some.bonds == BONDS).all()
    assert (molecules.graphs.pack(molecules.graphs.unpack(some)).bonds == BONDS).all()
    runs = [pipe.steps(params, WATER, key=jax.random.key(i), w_global=0.5 + i) for i in range(2)]
    assert jax.tree.structure(runs[0].network) == jax.tree.structure(runs[1].network) and len(runs[0]) == 20
    with pytest.raises(ValueError, match="conformers are drawn from a JAX key"):
        drawn(small, key=None)
    with pytest.raises(ValueError, match="an atom of number 104; the model knows those up to 99"):
        drawn(small, WATER._replace(numbers=np.array([104, 1, 1])))


def test_the_command_writes_the_bonds_of_a_smiles(small, tmp_path, capsys):
    """Whatever the positions: RDKit reads back the molecule, twice, with nothing added."""
    chem = pytest.importorskip("rdkit.Chem")
    pipe, params = small
    pipe.save_pretrained(tmp_path / "mine", params)
    again, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "mine")
    assert again == pipe and all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, params)))
    command = ["generate", str(tmp_path / "mine"), "--steps", "4", "--num-molecules", "2", "--w-global", "0.5"]
    assert main([*command, "--molecule", "C[NH2+]C=O", "--out", str(tmp_path / "drawn.sdf")]) == 0
    capsys.readouterr()
    read = list(chem.SDMolSupplier(str(tmp_path / "drawn.sdf"), removeHs=False))
    assert [chem.MolToSmiles(chem.RemoveHs(mol)) for mol in read] == ["C[NH2+]C=O"] * 2
    assert [mol.GetNumAtoms() for mol in read] == [10] * 2 and (tmp_path / "drawn.png").is_file()
    assert main([*command, "--molecule", "C(", "--out", str(tmp_path / "none.sdf")]) == 2
    assert "which is no SMILES" in capsys.readouterr().err and not (tmp_path / "none.sdf").exists()
    assert molecules.graph(_first(tmp_path)).numbers.tolist() == [6, 7, 6, 8, *[1] * 6]


def _first(folder):
    block = (folder / "drawn.sdf").read_text().split("$$$$")[0]
    (folder / "first.sdf").write_text(f"{block}$$$$\n")
    return folder / "first.sdf"


def test_langevin_dynamics_are_those_of_the_papers_code(small):
    """Per step x + h score and noise of variance 2 h, h = 1e-6 (sigma / 0.01)^2, score = -noise / sigma."""
    pipe, params = small
    own = fdiff.AnnealedLangevinScheduler.from_config(pipe.scheduler)
    pipe = pipe.replace(scheduler=own)
    signal = np.cumprod(1 - 1 / (1 + np.exp(-np.linspace(-6, 6, 20))) * (0.2 - 1e-3) - 1e-3)
    sigmas, rng = np.sqrt((1 - signal) / signal), np.random.default_rng(0)
    x, noise = rng.normal(size=(1, 3, 3)), rng.normal(size=(20, 1, 3, 3))
    plan, position = own.plan(20), x * sigmas[-1]
    for sigma, fresh in zip(sigmas[::-1], noise, strict=True):
        predicted = pipe.model.apply(
            {"params": params["model"]}, np.float32(position), 0, WATER.numbers[None], edge_kinds(BONDS, 3)[None],
            np.float32(sigma),
        )  # fmt: skip
        h = 1e-6 * (sigma / 0.01) ** 2
        position = position - h / sigma * np.asarray(predicted) + np.sqrt(2 * h) * fresh
        position = position - position.mean(1, keepdims=True)
    run = pipe.steps(params, WATER, key=jax.random.key(0))
    found = sampling.sample(run.network, plan, np.float32(sigmas[-1] * x), noise=np.float32(noise), after=run.after)
    assert np.abs(found - position).max() < 1e-4 * np.abs(position).max()
    first = np.asarray(from_key(plan, atoms_of(pipe.model, WATER), jax.random.key(0), 1000).x)
    assert abs(first.std() / sigmas[-1] - 1) < 0.03


@pytest.mark.parity
def test_the_run_is_that_of_diffusers_example(small, monkeypatch):
    """From noise of the deviation of the last sigma, DDPM's steps of diffusers, and the mean taken away."""
    import diffusers
    import torch

    pipe, params = small
    theirs = diffusers.DDPMScheduler(num_train_timesteps=20, **SCHEDULE)
    theirs.set_timesteps(20)
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(1, 3, 3)).astype(np.float32), rng.normal(size=(20, 1, 3, 3)).astype(np.float32)
    network = denoiser(pipe.model, params, pipe.scheduler, atoms_of(pipe.model, WATER), 0.5, 0.5)
    sigmas = (((1 - theirs.alphas_cumprod) / theirs.alphas_cumprod) ** 0.5).numpy()
    position, drawing = torch.from_numpy(x * sigmas[-1]), iter(noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor",
                        lambda *_, **__: torch.from_numpy(next(drawing)))
    for t in theirs.timesteps:
        epsilon = pipe.model.apply(
            {"params": params["model"]}, position.numpy(), 0, WATER.numbers[None], edge_kinds(BONDS, 3)[None],
            float(sigmas[t]), 0.5,
        )  # fmt: skip
        position = theirs.step(torch.from_numpy(np.array(epsilon)), t, position).prev_sample
        position = position - position.mean(1, keepdim=True)
    plan = pipe.scheduler.plan(20)
    run = pipe.steps(params, WATER, key=jax.random.key(0))
    found = sampling.sample(network, plan, plan.sigma[0] / plan.alpha[0] * x, noise=jnp.asarray(noise), after=run.after)
    assert np.abs(found - position.numpy()).max() < 1e-4 * np.abs(position.numpy()).max()
