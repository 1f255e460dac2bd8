"""Molecules: sizes, scaffolds, properties, energies, and files of EDM's own project."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from convert import edm
from fdiff import conversion, edm_checkpoint, molecules, sampling
from fdiff.cli import main
from fdiff.models import EGNNModel
from fdiff.molecules import molecule
from fdiff.pipelines.molecules import projected, settled
from fdiff.schedulers import PolynomialScheduler

WATER = molecule([[0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], "OHH")


@pytest.fixture(scope="module")
def small():
    """A pipeline of up to six atoms, told of one property."""
    pipe = fdiff.MoleculePipeline(
        EGNNModel(in_features=6, context_features=1, hidden_features=8, num_layers=1),
        PolynomialScheduler(num_train_timesteps=20), sizes=(0, 0, 1, 3, 0, 0, 2), properties=("alpha",), means=(70.0,),
        deviations=(6.0,),
    )  # fmt: skip
    return pipe, {"egnn": pipe.egnn.init_params(jax.random.key(0))}


def drawn(small, **options):
    pipe, params = small
    asked = {"batch_size": 3, "num_inference_steps": 4, "properties": {"alpha": 75.0}, "progress": False,
             "key": jax.random.key(1)}  # fmt: skip
    return pipe(params, **{**asked, **options}).molecules


def test_a_molecule_depends_on_its_own_key_and_has_the_size_asked_for(small):
    each = jax.random.split(jax.random.key(2), 3)
    some, others = drawn(small, key=each), drawn(small, key=each[jnp.array([2, 0, 1])])
    assert set(some.sizes) <= {2, 3, 6} and len(set(some.sizes)) > 1
    size = np.abs(some.positions).max()
    assert np.abs(some.positions.sum(1)).max() < 1e-5 * size and set(np.unique(some.numbers)) <= {0, 1, 6, 7, 8, 9}
    assert (others.numbers == some.numbers[[2, 0, 1]]).all()
    assert np.abs(others.positions - some.positions[[2, 0, 1]]).max() < 1e-5 * size
    assert drawn(small, num_atoms=5).sizes.tolist() == [5] * 3
    assert drawn(small, num_atoms=[2, 4, 6]).sizes.tolist() == [2, 4, 6]


def test_a_scaffold_stays_where_it_is(small):
    """The very positions and elements, in a molecule at least as large, whatever the network says."""
    for more in ({}, {"resamplings": 2}):
        found = drawn(small, scaffold=WATER, **more)
        assert np.abs(found.positions[:, :3] - WATER.positions).max() < 1e-4
        assert (found.numbers[:, :3] == WATER.numbers).all() and (found.sizes >= 3).all()


def test_an_energy_is_lowered_and_a_property_is_heard(small):
    def spread(positions, elements, mask):
        return (positions**2 * mask[..., None]).sum((1, 2))

    free, guided = (drawn(small, num_atoms=6, energy=spread, energy_scale=scale) for scale in (0.0, 0.2))
    assert (free.numbers == drawn(small, num_atoms=6).numbers).all()
    assert (np.square(guided.positions).sum((1, 2)) < np.square(free.positions).sum((1, 2))).all()
    other = drawn(small, num_atoms=6, properties={"alpha": [60.0, 75.0, 90.0]})
    same = np.abs(other.positions - free.positions).max((1, 2)) < 1e-5 * np.abs(free.positions).max()
    assert same.tolist() == [False, True, False]


def test_the_run_is_differentiable_and_its_gradient_that_of_differences(small):
    """d/dp of a function of the molecules that the sampler draws, through all of its steps."""
    pipe, params = small
    plan, mask, context = pipe.scheduler.plan(3), jnp.ones((1, 4), bool), jnp.ones((1, 4, 1))

    def size(bias):
        tree = {"egnn": {**params["egnn"], "embedding": {**params["egnn"]["embedding"], "bias": bias}}}
        return (fdiff.draw_molecules(pipe.egnn, tree, plan, mask, jax.random.key(0), context) ** 2).sum()

    bias = params["egnn"]["embedding"]["bias"]
    way = jnp.cos(jnp.arange(8.0))
    slope = jax.jit(jax.grad(size))(bias) @ way
    assert np.isclose(slope, (size(bias + 1e-2 * way) - size(bias - 1e-2 * way)) / 2e-2, rtol=2e-2)


def test_encoding_is_undone_by_decoding(small):
    pipe, _ = small
    x, mask = pipe.encode(WATER)
    back = pipe.decode_molecules(x, mask, WATER)
    assert np.abs(back.positions[:, :3] - WATER.positions).max() < 1e-6 and (back.numbers[:, :3] == WATER.numbers).all()
    assert np.allclose(x[0, 0, 3:], [0, 0, 0, 0.25, 0, 0.8]) and mask.sum() == 3


@pytest.mark.parametrize(("options", "said"), [
    ({"num_atoms": 7}, "num_atoms is 7; the model knows molecules of 1 to 6 atoms"),
    ({"num_atoms": 0}, "num_atoms is 0; the model knows"),
    ({"num_atoms": 2, "scaffold": WATER}, "num_atoms is 2 and the scaffold has 3; ask for at least as many"),
    ({"num_atoms": [2, 3]}, "give a whole number, or one for each of 3"),
    ({"scaffold": molecules.concatenate([WATER, WATER])}, "the scaffold is 2 molecules; give one"),
    ({"scaffold": molecule(np.zeros((1, 3)), ["Cl"])}, "the model knows no Cl; its elements are H, C, N, O, F"),
    ({"scaffold": molecule(np.eye(7)[:, :3], "C" * 7)}, "a molecule has 7 atoms; the model knows those of up to 6"),
    ({"properties": {}}, "properties is none, and the model was trained with alpha; give a number for each of those"),
    ({"key": None}, "molecules are drawn from a JAX key"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_a_sentence(small, options, said):
    with pytest.raises(ValueError) as error:
        drawn(small, **options)
    assert said in str(error.value)


def test_it_is_saved_and_loaded_as_it_is(small, tmp_path):
    pipe, params = small
    pipe.save_pretrained(tmp_path / "model", params)
    again, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, params)))


def test_files_of_edm_are_converted(shared_data, tmp_path):
    """The published checkpoint's folder holds the numbers of the file, and says the schedule that its table is of."""
    file = shared_data / "weights" / "edm_qm9_nf128_l5" / "generative_model_ema.npy"
    assert conversion.convert(file, tmp_path / "edm") == "MoleculePipeline"
    assert {one.name for one in (tmp_path / "edm" / "egnn").iterdir()} == {
        "config.json", "diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "edm")
    other, tree = fdiff.DiffusionPipeline.from_single_file(file)
    assert pipe == other and pipe.egnn.count_parameters() == 746_892 and sum(pipe.sizes) == 100_000
    assert pipe.scheduler == PolynomialScheduler(num_train_timesteps=200, power=2.0, noise_precision=1e-5)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), params, tree)))
    (tmp_path / "other.npy").write_bytes(b"\x93NUMPY no file of torch")
    with pytest.raises(ValueError, match=r"other\.npy"):
        edm_checkpoint.inspect(tmp_path / "other.npy")
    with pytest.raises(ValueError, match="sinusoids"):
        edm.facts({f"{edm.PREFIX}{name}": np.zeros((8, 20)) for name in (
            "embedding.weight", "e_block_0.gcl_0.edge_mlp.0.weight", "e_block_0.gcl_equiv.coord_mlp.4.weight"
        )}, {})  # fmt: skip


def test_a_second_run_compiles_nothing(small):
    """What jit keeps a program by is equal in two runs of other molecules, guided or not."""
    pipe, params = small
    for energy in (None, lambda positions, elements, mask: positions.sum((1, 2))):
        runs = [
            pipe.steps(params, key=jax.random.key(i), properties={"alpha": 70.0 + i}, energy=energy, num_atoms=i)
            for i in (2, 3)
        ]
        assert jax.tree.structure(runs[0].network) == jax.tree.structure(runs[1].network)
        assert jax.tree.structure(runs[0].after) == jax.tree.structure(runs[1].after)


def test_all_sizes_are_one_program(small):
    pipe, params = small
    traces, context, plan = [], jnp.zeros((3, 6, 1)), pipe.scheduler.plan(2)

    def network(params, mask, x, t):
        traces.append(1)
        return pipe.egnn.apply({"params": params}, x, t, mask, context)

    counts = []
    for sizes in ([2, 3, 6], [6, 6, 6]):
        mask = jnp.arange(6) < jnp.array(sizes)[:, None]
        told = jax.tree_util.Partial(network, params["egnn"], mask)
        after = jax.tree_util.Partial(projected, mask)
        sampling.sample(told, plan, jnp.zeros((3, 6, 9)), jax.random.key(1), after=after)
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def test_elements_are_those_that_atoms_are_most_at_the_least_noise():
    """At t = 0 positions are moved once more by what the network says, features are not (EDM's p(x, h | z_0))."""
    scheduler = PolynomialScheduler(num_train_timesteps=10, noise_precision=1e-3)
    alpha, sigma = (float(level) for level in scheduler.levels(0.0))
    x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    network = jax.tree_util.Partial(settled, jax.tree_util.Partial(lambda x, t: jnp.full_like(x, 50.0)))
    assert (network(x, jnp.float32(0.1)) == 50).all()
    last = np.asarray(sampling.sample(network, scheduler.plan(10)[10:], x, noise=jnp.zeros((1, *x.shape))))
    assert np.allclose(last[..., :3], (x[..., :3] - 50 * sigma) / alpha, atol=1e-5)
    assert np.allclose(last[..., 3:], x[..., 3:] / alpha, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that the command line can draw from: told of nothing."""
    pipe = fdiff.MoleculePipeline(
        EGNNModel(in_features=6, hidden_features=4, num_layers=1),
        PolynomialScheduler(num_train_timesteps=4), (1, 6, 7, 8, 9), (0, 0, 1, 2, 0, 0, 1),
    )  # fmt: skip
    place = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(place / "mine", {"egnn": pipe.egnn.init_params(jax.random.key(0))})
    molecules.write(place / "water.xyz", WATER)
    (place / "nan.xyz").write_text("1\n\nH nan 0 0\n")
    molecules.write(place / "chlorine.xyz", molecule(np.zeros((1, 3)), ["Cl"]))
    molecules.write(place / "large.xyz", molecule(np.arange(21.0).reshape(7, 3), "C" * 7))
    return place


def test_the_command_writes_molecules_and_a_picture(folder, tmp_path, capsys, monkeypatch):
    """RDKit reads as many molecules as were asked for, of as many atoms, and adds none."""
    monkeypatch.chdir(folder)
    command = ["generate", "mine", "--num-molecules", "3", "--num-atoms", "5", "--scaffold", "water.xyz"]
    assert main([*command, "--out", str(tmp_path / "drawn.sdf")]) == 0
    assert str(tmp_path / "drawn.sdf") in capsys.readouterr().out and (tmp_path / "drawn.png").is_file()
    found = molecules.read(tmp_path / "drawn.sdf")
    assert found.sizes.tolist() == [5] * 3 and (found.numbers[:, :3] == WATER.numbers).all()
    chem = pytest.importorskip("rdkit.Chem")
    read = chem.SDMolSupplier(str(tmp_path / "drawn.sdf"), removeHs=False, sanitize=False)
    assert [mol.GetNumAtoms() for mol in read] == [5] * 3


@pytest.mark.parametrize(("options", "said"), [
    (["--scaffold", "chlorine.xyz"], "the model knows no Cl; its elements are H, C, N, O, F"),
    (["--scaffold", "large.xyz"], "a molecule has 7 atoms; the model knows those of up to 6"),
    (["--scaffold", "nan.xyz"], "nan.xyz: the molecule at line 1: the position of atom 1 is not finite"),
    (["--scaffold", "water.xyz", "--num-atoms", "2"], "--num-atoms is 2 and the scaffold has 3; ask for"),
    (["--scaffold", "none.sdf"], "none.sdf"),
    (["--num-atoms", "7"], "--num-atoms is 7; the model knows molecules of 1 to 6 atoms"),
    (["--steps", "5"], "--steps is 5; the model was trained with 4"),
    (["--properties", "gap=0.2, mu=3"], "--properties is gap, mu, and the model was trained with none"),
    (["--properties", "gap"], "--properties is 'gap'; give names and numbers"),
    (["--properties", "gap=nan"], "--properties is 'gap=nan'; give names and numbers"),
    (["--out", "m.png"], "a molecule is called something like m.sdf"),
    (["--animate", "m.gif"], "--animate shows pictures"),
])  # fmt: skip
def test_the_command_refuses_in_a_sentence_and_writes_nothing(folder, capsys, monkeypatch, options, said):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert main(["generate", "mine", *(["--out", "m.sdf"] if "--out" not in options else []), *options]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told and sorted(folder.iterdir()) == before


@pytest.mark.parity
def test_a_run_is_that_of_edms_algorithm_in_torch(shared_data):
    """Of the published checkpoint, from the same noise: positions to a thousandth of the largest, and all elements."""
    import torch

    from tests.benchmarks import bench_molecules as edm_in_torch

    file = shared_data / "weights" / "edm_qm9_nf128_l5" / "generative_model_ema.npy"
    pipe, params = edm_checkpoint.load(file)
    inspected = edm_checkpoint.inspect(file).tensors
    weights = {name: torch.from_numpy(value.read().copy()) for name, value in inspected.items()}
    with np.load(shared_data / "fixtures" / "edm_qm9_nf128_l5_forward.npz") as fixture:
        gamma = fixture["gamma"].astype(np.float64)
    sizes = np.array([4, 9, 7])

    def noise(i):
        return np.random.default_rng(i).standard_normal((3, 9, 9), np.float32)

    theirs = edm_in_torch.torch_draw(weights, 5, gamma, 20, sizes, noise, 9)
    ours = edm_in_torch.fdiff_draw(pipe, params, 20, sizes, noise, 9)
    there = np.arange(9) < sizes[:, None]
    assert np.abs(ours - theirs)[there][:, :3].max() < 1e-3 * np.abs(theirs[there][:, :3]).max()
    assert (ours[..., 3:8].argmax(-1) == theirs[..., 3:8].argmax(-1))[there].all()
