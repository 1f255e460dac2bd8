"""Downloads from and uploads to a stand-in for the Hub, by the real huggingface_hub."""

import collections
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

import fdiff
from fdiff import hub, upload
from fdiff.models.model import Model
from tests.fake_hub import FakeHub


class Toy(Model):
    """A model small enough to read."""

    width: int = 4
    blocks: tuple[int, ...] = (1, 2)

    def example_inputs(self):
        return (np.zeros((1, 4, 4, 3), np.float32),)

    @nn.compact
    def __call__(self, x):
        return nn.GroupNorm(2, name="norm")(nn.Conv(self.width, (3, 3), name="convs.0")(x))


@pytest.fixture(scope="module")
def toy():
    model = Toy()
    return model, model.init_params(jax.random.key(0))


def uploaded(toy, folder: Path, **options) -> dict[str, bytes]:
    """The files of a saved model, as a repository holds them."""
    toy[0].save_pretrained(folder, toy[1], **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_download(fake: FakeHub, toy, tmp_path):
    files = uploaded(toy, tmp_path / "saved")
    fake.add("me/toy", {**files, "diffusion_pytorch_model.bin": b"not wanted", "README.md": b"nor this"})
    model, params = Toy.from_pretrained("me/toy")
    assert model == toy[0]
    same(params, toy[1])
    assert fake.downloads() == ["config.json", "diffusion_pytorch_model.safetensors"]
    fake.requests.clear()
    Toy.from_pretrained("me/toy")
    assert fake.requests == ["HEAD me/toy/resolve/main/config.json"], "all else is in the cache"


def test_subfolder_variant_and_shards(fake: FakeHub, toy, tmp_path):
    files = uploaded(toy, tmp_path / "saved", variant="fp16", max_shard_size=64)
    assert len(files) > 3
    fake.add("me/toy", {f"unet/{name}": data for name, data in files.items()})
    same(Toy.from_pretrained("me/toy", subfolder="unet", variant="fp16")[1], toy[1])
    assert sorted(fake.downloads()) == sorted(f"unet/{name}" for name in files)
    with pytest.raises(FileNotFoundError, match="me/toy/unet has no diffusion_pytorch_model"):
        Toy.from_pretrained("me/toy", subfolder="unet")


def test_the_index_goes_before_a_single_file(fake: FakeHub, toy, tmp_path):
    """As in diffusers, where a folder or a repository has both."""
    model, params = toy
    old = uploaded((model, jax.tree.map(np.zeros_like, params)), tmp_path / "old")
    new = uploaded(toy, tmp_path / "new", max_shard_size=64)
    for name, data in new.items():
        (tmp_path / "old" / name).write_bytes(data)
    same(Toy.from_pretrained(tmp_path / "old")[1], params)
    fake.add("me/toy", old | new)
    same(Toy.from_pretrained("me/toy")[1], params)


def test_a_file_where_a_repository_is_wanted(fake: FakeHub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loras").mkdir()
    Path("loras/style.safetensors").write_bytes(b"")
    for source in ("loras/style.safetensors", tmp_path / "loras" / "style.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"style.safetensors is a file, and .* from_single_file"):
            Toy.from_pretrained(source)
    assert fake.requests == []


def test_revision(fake: FakeHub, toy, tmp_path):
    files = uploaded(toy, tmp_path / "saved")
    fake.add("me/toy", {})
    commit = fake.add("me/toy", files, "v1")
    for revision in ("v1", commit):
        same(Toy.from_pretrained("me/toy", revision=revision)[1], toy[1])
    with pytest.raises(FileNotFoundError, match=r"me/toy has no config.json"):
        Toy.from_pretrained("me/toy")
    with pytest.raises(FileNotFoundError, match="me/toy has no revision v2; choose"):
        Toy.from_pretrained("me/toy", revision="v2")


def test_offline(fake: FakeHub, toy, tmp_path, monkeypatch):
    from huggingface_hub import constants

    fake.add("me/toy", uploaded(toy, tmp_path / "saved"))
    with pytest.raises(ConnectionError, match=r"of me/toy is not in the cache; unset HF_HUB_OFFLINE"):
        Toy.from_pretrained("me/toy", local_files_only=True)
    Toy.from_pretrained("me/toy", cache_dir=tmp_path / "other")
    fake.requests.clear()
    Toy.from_pretrained("me/toy", cache_dir=tmp_path / "other", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    same(Toy.from_pretrained("me/toy", cache_dir=tmp_path / "other")[1], toy[1])
    with pytest.raises(ConnectionError, match="is not in the cache"):
        Toy.from_pretrained("me/toy")
    assert fake.requests == []


def test_the_environment_is_obeyed(fake: FakeHub, toy, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, which huggingface_hub reads when it is imported."""
    fake.add("me/toy", uploaded(toy, tmp_path / "saved"))
    code = "from fdiff import hub; print(hub.load_config('me/toy', 'config.json')['width'])"
    environment = {**os.environ, "HF_ENDPOINT": fake.endpoint, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    for offline in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "4\n"
    assert list((tmp_path / "home").rglob("config.json"))


def test_no_network(fake: FakeHub, toy, tmp_path, monkeypatch):
    from huggingface_hub import constants

    fake.add("me/toy", uploaded(toy, tmp_path / "saved"))
    Toy.from_pretrained("me/toy")
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    same(Toy.from_pretrained("me/toy")[1], toy[1])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub tries again, later and later
    with pytest.raises(ConnectionError, match=f"of me/other is not in the cache; {nowhere} could not"):
        Toy.from_pretrained("me/other")


def test_refusals(fake: FakeHub, tmp_path):
    fake.gated.add("me/gated")
    with pytest.raises(PermissionError, match=f"me/gated is gated; accept its terms on {fake.endpoint}"):
        hub.load_config("me/gated", "config.json")
    with pytest.raises(FileNotFoundError, match="me/none is neither a folder here nor a repository"):
        hub.load_config("me/none", "config.json")
    fake.add("me/toy", {"config.json": b"[1]", "broken.json": b"{"})
    with pytest.raises(ValueError, match=r"config.json holds no JSON object"):
        hub.load_config("me/toy", "config.json")
    with pytest.raises(ValueError, match=r"broken.json is no JSON"):
        hub.load_config("me/toy", "broken.json")
    for name in ("./nothing", "a/b/c", tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="is neither a folder nor the id of a repository"):
            hub.load_config(name, "config.json")
    with pytest.raises(ValueError, match="no id of a repository"):
        hub.load_config("me/double--dash", "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no config.json"):
        Toy.from_pretrained(tmp_path / "empty")


def test_fallback_folder_and_old_pipelines(fake: FakeHub, tmp_path):
    index = {"model_index.json": b"{}"}
    fake.add("me/new", {"scheduler/scheduler_config.json": b'{"a": 1}', "unet/config.json": b"{}", **index})
    fake.add("me/old", {"scheduler_config.json": b'{"a": 2}', "config.json": b"{}", **index})
    for name, value in (("me/new", 1), ("me/old", 2)):
        found = hub.fetch(hub.Source(name), "scheduler_config.json", "scheduler/scheduler_config.json")
        assert hub.read_json(found) == {"a": value}
    assert hub.has_folder("me/new", "unet") and not hub.has_folder("me/old", "unet")
    hub.load_config("me/new", "config.json", subfolder="unet")
    assert hub.has_folder("me/new", "unet", local_files_only=True)
    assert not hub.has_folder("me/old", "unet", local_files_only=True)
    (tmp_path / "unet").mkdir()
    assert hub.has_folder(tmp_path, "unet") and not hub.has_folder(tmp_path, "vae")


def test_variants_that_some_components_have(fake: FakeHub, tmp_path):
    """A component has the variant, another its plain weights, on the Hub, in the cache and in a folder."""
    index = b'{"_class_name": "DDPMPipeline"}'
    files = {"unet/x.fp16.safetensors": b"", "vae/x.safetensors": b"", "model_index.json": index}
    fake.add("me/mixed", files)
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for source in (hub.Source("me/mixed"), hub.Source(tmp_path)):
        for subfolder, found in (("unet", "fp16"), ("vae", None), (None, "fp16")):
            assert hub.available_variant(source._replace(subfolder=subfolder), "fp16") == found
        assert hub.available_variant(source, None) is None
        with pytest.raises(FileNotFoundError, match="has no weights of the variant bf16; leave variant out"):
            hub.available_variant(source, "bf16")
    cached = hub.Source("me/mixed", "unet", local_files_only=True)
    assert hub.available_variant(cached, "fp16") is None
    hub.fetch(hub.Source("me/mixed", "unet"), "x.fp16.safetensors")
    assert hub.available_variant(cached, "fp16") == "fp16"


def test_class_names(tmp_path):
    assert hub.class_name({"_class_name": "A"}, tmp_path) == hub.class_name({"architectures": ["A"]}, tmp_path) == "A"
    for config in ({}, {"architectures": []}, {"_class_name": 3}):
        with pytest.raises(ValueError, match="does not say of which class it is; add _class_name"):
            hub.class_name(config, tmp_path)


def test_push(fake: FakeHub, toy):
    fake.token = "secret"
    model, params = toy
    assert model.push_to_hub("me/toy", params) == f"{fake.endpoint}/me/toy"
    files = fake.repositories["me/toy"]["main"]
    assert sorted(files) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: fdiff\ntags:\n- fdiff\n- jax\n- Toy\n---\n")
    assert 'fdiff.Toy.from_pretrained("me/toy")' in card and "pip install fdiff-jax" in card
    same(Toy.from_pretrained("me/toy")[1], params)
    files["README.md"] = b"mine"
    model.push_to_hub("me/toy", params, commit_message="again")
    assert fake.repositories["me/toy"]["main"]["README.md"] == b"mine"


def test_push_is_refused_without_a_token_that_may_write(fake: FakeHub, toy, monkeypatch):
    fake.token = "another"
    with pytest.raises(PermissionError, match="me/toy may not be written; run `hf auth login`"):
        toy[0].push_to_hub("me/toy", toy[1])


def test_card_of_a_pipeline(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    card = upload.card(tmp_path, "me/cats", "unconditional-image-generation")
    assert "pipeline_tag: unconditional-image-generation\n" in card
    assert 'pipe, params = fdiff.DiffusionPipeline.from_pretrained("me/cats")' in card


def test_a_pipeline_and_a_scheduler_go_up_and_come_down(fake: FakeHub):
    fake.token = "secret"
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS, dtype=None)
    pipe.push_to_hub("me/digits", params)
    files = fake.repositories["me/digits"]["main"]
    assert {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"} <= set(files)
    assert b"pipeline_tag: unconditional-image-generation" in files["README.md"]
    found, found_params = fdiff.DiffusionPipeline.from_pretrained("me/digits", dtype=None)
    assert found == pipe
    same(found_params, params)
    fdiff.UniPCMultistepScheduler(solver_order=3).push_to_hub("me/unipc")
    assert fdiff.UniPCMultistepScheduler.from_pretrained("me/unipc").solver_order == 3
    assert fdiff.DDIMScheduler.from_pretrained("me/digits") == pipe.scheduler


def test_force_download_mends_all_of_a_pipeline(fake: FakeHub, tmp_path):
    fake.token = "secret"
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS, dtype=None)
    pipe.push_to_hub("me/digits", params)
    fdiff.DiffusionPipeline.from_pretrained("me/digits")
    for blob in (tmp_path / "cache").rglob("blobs/*"):
        blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(ValueError, match=r"model_index.json is no JSON"):
        fdiff.DiffusionPipeline.from_pretrained("me/digits")
    found, found_params = fdiff.DiffusionPipeline.from_pretrained("me/digits", dtype=None, force_download=True)
    assert found == pipe
    same(found_params, params)
    same(fdiff.UNet2DModel.from_pretrained("me/digits", subfolder="unet")[1], params["unet"])


def test_how_often_the_hub_is_asked_for_a_pipeline(fake: FakeHub):
    """Twice about each file that comes, by fdiff and by huggingface_hub; where all is in the cache, once in all."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS, dtype=None)
    pipe.push_to_hub("me/digits", params)
    fake.requests.clear()
    fdiff.DiffusionPipeline.from_pretrained("me/digits")
    asked = collections.Counter(re.sub("[^ ]*/(resolve|revision)/[^/]*/?", "", line) for line in fake.requests)
    files = ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
             "scheduler/scheduler_config.json")  # fmt: skip
    once = {"HEAD unet/diffusion_pytorch_model.safetensors.index.json": 1}  # of which there is none
    folders = {"GET ": 2}  # which files there are, for each component
    assert asked == {f"HEAD {file}": 2 for file in files} | {f"GET {file}": 1 for file in files} | once | folders
    fake.requests.clear()
    fdiff.DiffusionPipeline.from_pretrained("me/digits")
    assert fake.requests == ["HEAD me/digits/resolve/main/model_index.json"]


def test_a_variant_that_is_here_asks_no_hub(tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    for name in ("model_index.json", "unet/diffusion_pytorch_model.fp16.safetensors"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(hub, "_on_hub", lambda source: pytest.fail("the Hub was asked"))
    assert hub.available_variant(hub.Source(tmp_path), "fp16") == "fp16"
    assert hub.available_variant(hub.Source(tmp_path, "unet"), "fp16") == "fp16"


def test_models_that_ship_have_names(tmp_path, monkeypatch):
    assert "digits" in hub.shipped()
    pipe, _ = fdiff.DiffusionPipeline.from_pretrained("digits")
    assert pipe == fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)[0]
    assert fdiff.DDIMScheduler.from_pretrained("digits") == pipe.scheduler
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert hub.folder_of("digits") == Path("digits"), "a folder of one's own goes before"


@pytest.mark.parametrize("name", ["coloured-digits", "colored-digit", "digit"])
def test_a_model_that_ships_is_found_by_nearly_its_name(name):
    with pytest.raises(FileNotFoundError, match=f"no model {name}; (colored-)?digits is one that fdiff ships"):
        hub.folder_of(name)
    assert hub.folder_of(f"someone/{name}") is None
