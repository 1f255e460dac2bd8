"""What a pipeline is made of: requests, stages and tasks; the registry that finds it; pipelines of other packages."""

import ast
import dataclasses
import importlib
import inspect
import json
import pydoc
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

import jax
import numpy as np
import pytest

import fdiff
from fdiff import registry, sampling
from fdiff.conversion import convert
from fdiff.models.model import Model
from fdiff.pipelines.task import Request, Task
from fdiff.schedulers import Scheduler
from fdiff.summary import summary
from tests.pipelines import inputs

HERE = Path(__file__).parent
KEY = jax.random.key(0)
QUICK = {"num_inference_steps": 3, "progress": False, "output_type": "array"}
PIPELINES = {name: cls for name, cls in registry.known(fdiff.DiffusionPipeline) if hasattr(cls, "steps")}


@pytest.fixture(scope="module")
def toys():
    """Pipelines and models of another package, registered for as long as this module's tests run."""
    entries = {name: list(found) for name, found in registry._ENTRIES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_ENTRIES", entries)
        names = ("models", "flux", "sound")
        yield types.SimpleNamespace(**{n: importlib.import_module(f"tests.pipelines.toy_{n}") for n in names})


@pytest.fixture(scope="module")
def flux(toys):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = fdiff.AutoencoderKL(block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=2, **blocks)
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    models = toys.models.ToyEncoder(), toys.models.ToyTokenizer(9), toys.models.ToyTransformer()
    pipe = toys.flux.ToyFluxPipeline(vae, *models, scheduler)
    return pipe, {name: getattr(pipe, name).init_params(KEY) for name in ("vae", "text_encoder", "transformer")}


@pytest.fixture(scope="module")
def sound(toys):
    pipe = toys.sound.ToySoundPipeline(toys.models.ToyWave(), fdiff.DDIMScheduler(), 8000)
    return pipe, {"unet": pipe.unet.init_params(KEY)}


@pytest.fixture
def names(monkeypatch):
    """The registry, to add names to for one test."""
    monkeypatch.setattr(registry, "_ENTRIES", {name: list(found) for name, found in registry._ENTRIES.items()})
    return registry


@pytest.mark.parametrize("name", ["flux", "sound"])
def test_a_pipeline_of_another_shape_takes_at_most_sixty_lines(name):
    source = (HERE / f"toy_{name}.py").read_text()
    parts = [node for node in ast.parse(source).body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    starts = [min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) for node in parts]
    lines = source.splitlines()
    written = [line for node, start in zip(parts, starts, strict=True) for line in lines[start - 1 : node.end_lineno]]
    assert 20 < len([line for line in written if line.strip()]) <= 60


def test_flux_is_drawn_saved_and_loaded(flux, tmp_path):
    pipe, params = flux
    drawn = pipe(params, "a cat", key=KEY, **QUICK).images
    assert drawn.shape == (1, 16, 16, 3)
    pipe.save_pretrained(tmp_path / "flux", params)
    again, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "flux")
    assert again == pipe  # its tokenizer and the models too, which another package has
    np.testing.assert_array_equal(again(tree, "a cat", key=KEY, **QUICK).images, drawn)
    count = sum(leaf.size for leaf in jax.tree.leaves(params["transformer"]))
    table = summary(tmp_path / "flux")
    assert f"transformer: ToyTransformer, {count} parameters, float32" in table and "tokenizer: ToyTokenizer" in table


def test_flux_reads_its_options(flux):
    pipe, params = flux
    drawn = np.asarray(pipe(params, "a cat", key=KEY, **QUICK).images)
    for other in ({"prompt": "a dog"}, {"guidance_scale": 9.0}):
        asked = {"prompt": "a cat", **other}
        assert np.abs(pipe(params, key=KEY, **asked, **QUICK).images - drawn).max() > 1e-3
    run = pipe.steps(params, "a cat", size=32, key=KEY, num_inference_steps=3)
    assert run.x.shape == (1, 64, 16)
    np.testing.assert_array_equal(run.plan.t, pipe.scheduler.plan(3, mu=pipe.scheduler.mu(64)).t)


def test_flux_packs_what_it_unpacks(toys, flux):
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    finish = toys.flux.unpacked(flux[0], flux[1], "latent", 16)
    np.testing.assert_array_equal(finish(toys.flux.packed(x)).images, x)


def test_a_whole_call_compiles_as_one_program(flux, sound):
    pipe, params = flux

    @jax.jit
    def drawn(params, key, scale):
        return pipe(params, "a cat", key=key, guidance_scale=scale, **QUICK).images

    plain = pipe(params, "a cat", key=KEY, guidance_scale=2.0, **QUICK).images
    np.testing.assert_allclose(drawn(params, KEY, 2.0), plain, atol=1e-5)
    pipe, params = sound
    heard = jax.jit(lambda params, key: pipe(params, key=key, **QUICK).audios)(params, KEY)
    np.testing.assert_allclose(heard, pipe(params, key=KEY, **QUICK).audios, atol=1e-5)


def test_sound_comes_out_as_sound(toys, sound, tmp_path):
    pipe, params = sound
    heard = pipe(params, 0.02, key=KEY, batch_size=2, num_inference_steps=3, progress=False)
    assert isinstance(heard, toys.sound.Sound) and isinstance(heard.audios, np.ndarray)
    assert heard.audios.shape == (2, 160) and heard.sampling_rate == 8000
    pipe.save_pretrained(tmp_path / "sound", params)
    again, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "sound")
    assert again == pipe
    wanted = heard.audios
    np.testing.assert_array_equal(again(tree, 0.02, key=KEY, batch_size=2, **QUICK).audios, wanted)
    alone = pipe(params, 0.02, key=jax.random.fold_in(KEY, 1)[None], **QUICK).audios
    np.testing.assert_allclose(alone[0], wanted[1], atol=1e-5)


# -- what every pipeline is made of ----------------------------------------------------------------------------------


def given_by(stage):
    """Name -> type of what a stage gives."""
    return typing.get_type_hints(typing.get_type_hints(stage)["return"])


@pytest.mark.parametrize("name", [*PIPELINES, "ToyFluxPipeline", "ToySoundPipeline"])
def test_stages_name_what_there_is(name, toys):
    cls = registry.lookup(name, fdiff.DiffusionPipeline)
    task = cls.steps.task
    held = {"pipe": typing.Any, "params": typing.Any}
    held |= typing.get_type_hints(cls) | typing.get_type_hints(task.request)
    for stage in (*task.stages, task.finish):
        types_of = typing.get_type_hints(stage)
        for parameter in inspect.signature(stage).parameters.values():
            assert parameter.name in held or parameter.default is not parameter.empty, (stage, parameter)
            takes, has = types_of[parameter.name], held.get(parameter.name, typing.Any)
            assert parameter.name == "pipe" or fits(has, takes), (stage.__name__, parameter.name, takes, has)
        if stage is not task.finish:
            held |= given_by(stage)
    assert {"network", "plan", "x", "draws"} <= held.keys()


def fits(has, takes):
    """Whether a value of one type can be taken for another, as far as classes and unions tell; Any can."""
    def parts(kind):
        return set(typing.get_args(kind)) if isinstance(kind, types.UnionType | typing._UnionGenericAlias) else {kind}

    if any(typing.Any in (kind, *typing.get_args(kind)) for kind in (has, takes)):
        return True
    wanted = parts(takes)
    return all(one in wanted or wanted & {*getattr(one, "__mro__", ())} for one in parts(has) - {type(None)})


@pytest.mark.parametrize("cls", PIPELINES.values(), ids=PIPELINES)
def test_help_shows_every_option(cls):
    task = cls.steps.task
    call, steps = inspect.signature(cls.__call__), inspect.signature(cls.steps)
    assert call == steps
    asked = inspect.signature(task.request).parameters
    assert list(call.parameters) == ["self", "params", *asked] and {one.name for one in task.options} == {*asked}
    text = " ".join(pydoc.render_doc(cls, renderer=pydoc.plaintext).replace("|", " ").split())
    for one in task.options:
        assert one.doc.strip() and not one.doc.endswith((".", " "))
        said = " ".join(f"{one.name}: {one.doc}.".replace("|", " ").split())
        assert text.count(said) >= 2  # of the call and of steps
        assert call.parameters[one.name].default == asked[one.name].default


def test_options_are_inherited():
    large, text = ({one.name: one for one in request.task.options} for request in (
        fdiff.StableDiffusionXLPipeline.steps, fdiff.StableDiffusionPipeline.steps))  # fmt: skip
    assert (large["guidance_scale"].default, text["guidance_scale"].default) == (5.0, 7.5)
    assert large["guidance_scale"].doc == text["guidance_scale"].doc
    assert large["negative_prompt"].doc != text["negative_prompt"].doc


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((), {"guidance_scal": 2.0}, "has no option 'guidance_scal'; did you mean guidance_scale?"),
        ((), {"num_steps": 2}, "has no option 'num_steps'; did you mean num_inference_steps?"),
        ((), {"xyzzy": 2}, "has no option 'xyzzy'; see help(pipe)"),
        (("a", "b"), {}, "takes prompt in that order without names, and 2 are given; name the others"),
        (("a",), {"prompt": "b"}, "is given prompt twice; name it once"),
    ],
)
def test_wrong_options_are_named_in_one_sentence(sd, args, options, words):
    pipe, params = sd
    for call in (pipe, pipe.steps):
        with pytest.raises(TypeError) as error:
            call(params, *args, key=KEY, **options)
        assert str(error.value) == f"StableDiffusionPipeline {words}"


def test_what_is_needed_is_asked_for(conditional):
    with pytest.raises(TypeError, match=r"^ClassConditionalPipeline needs class_labels: numbers or names of classes"):
        conditional[0](conditional[1], key=KEY)


def test_a_stage_that_names_what_nobody_gives():
    def lost(colour): ...

    task = Task(Request, (lost,), lambda: None, "Nothing.")
    with pytest.raises(ValueError, match=r"the stage lost takes 'colour', which is no component of SimpleNamespace"):
        task.begin(types.SimpleNamespace(), {}, Request())


def test_a_run_gives_what_the_call_gives(sd):
    pipe, params = sd
    options = {"key": KEY, "num_inference_steps": 3, "progress": False}
    called = pipe(params, inputs.PROMPTS, output_type="array", **options)
    run = pipe.steps(params, inputs.PROMPTS, output_type="array", **options)
    assert isinstance(run, sampling.Steps) and len(run) == 3
    np.testing.assert_array_equal(run.plan.t, pipe.scheduler.plan(3).t)
    assert run.x.shape == (2, 8, 8, 4) and run.key.shape == (2,)
    ran = run.run()
    assert type(ran) is type(called) is fdiff.ImageOutput
    np.testing.assert_array_equal(ran.images, called.images)
    states = [state for state, _ in run]  # from the start again
    np.testing.assert_array_equal(pipe.decode(params, states[-1].x), called.images)
    np.testing.assert_allclose(sampling.sample(run.network, run.plan, run.x, run.key), states[-1].x, atol=1e-5)


CALLS = """
from typing import Any
import fdiff
import jax

def draw(
    pipe: fdiff.StableDiffusionPipeline, redraw: fdiff.StableDiffusionImg2ImgPipeline, params: dict[str, Any],
    digits: fdiff.ClassConditionalPipeline, key: jax.Array,
) -> None:
    reveal_type(pipe(params, "a cat", key=key))
    reveal_type(pipe.steps(params, ["a cat", "a dog"], guidance_scale=3.0, height=64).run())
    redraw(params, "a cat", None, strength=0.5, negative_prompt="blurry", torch_seed=4)
    for state, x0 in digits.steps(params, [1, 2], plan=digits.scheduler.plan(3)):
        reveal_type(x0)
    redraw(params, "a cat", strenght=0.5)  # refused
    pipe(params, "a cat", num_inference_steps="three")  # refused
    pipe(params, "a cat", mask_image=None)  # refused
    pipe.steps(params, "a cat", mask_image=None)  # refused
    pipe(params, "a cat", "a dog")  # refused
    pipe("a cat")  # refused
"""


def test_mypy_knows_the_options(tmp_path):
    pytest.importorskip("mypy")
    root, file = HERE.parents[1], tmp_path / "calls.py"
    file.write_text(CALLS)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", ".mypy_cache", str(file)]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout
    refused = [i for i, line in enumerate(CALLS.splitlines(), 1) if line.endswith("# refused")]
    assert sorted({int(n) for n in re.findall(r"calls.py:(\d+): error", said)}) == refused, said
    revealed = re.findall(r'Revealed type is "([^"]*)"', said)
    kinds = [re.search(r"ImageOutput|Array", one)[0] for one in revealed]
    assert kinds == ["ImageOutput", "ImageOutput", "Array"], said


# -- compilations ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled():
    """A list that grows with every program that is compiled, of one operation too."""
    found, on = [], [True]

    def note(event, seconds, **about):
        if on[0] and event == "/jax/core/compile/backend_compile_duration":
            found.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    on[0] = False


def test_nothing_at_all_is_compiled_twice(sd, compiled):
    pipe, params = sd

    def drawn(pipe, prompts, seed, **options):
        options = {"num_inference_steps": 20, "progress": False, "output_type": "array", **options}
        pipe(params, prompts, key=jax.random.key(seed), **options).images.block_until_ready()

    drawn(pipe, ["a", "b"], 0)
    jax.jit(lambda x: x + 1)(1.0)
    assert compiled
    for options in ({"negative_prompt": "blurry"}, {"guidance_scale": 3.0}, {"num_inference_steps": 7}):
        compiled.clear()
        drawn(pipe, ["c", "d e f"], 1, **options)
        assert not compiled, options
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler", "DDPMScheduler"):
        drawn(pipe.replace(scheduler=getattr(fdiff, name).from_config(pipe.scheduler)), ["c", "d"], 1)
        assert not compiled, name


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_are_found(names):
    assert issubclass(registry.lookup("DDIMParallelScheduler", Scheduler), fdiff.DDIMScheduler)
    assert registry.lookup("FlaxStableDiffusionPipeline") is fdiff.StableDiffusionPipeline
    assert registry.lookup("FlaxPNDMScheduler", Scheduler) is fdiff.PNDMScheduler
    assert registry.lookup("UNet2DModel", Scheduler) is None and registry.lookup(None) is None
    assert fdiff.register(fdiff.UNet2DModel, "OldUNet", "OlderUNet") is fdiff.UNet2DModel
    assert registry.lookup("OlderUNet", Model) is registry.lookup("OldUNet") is fdiff.UNet2DModel
    with pytest.raises(ValueError, match=r"register takes a class"):
        fdiff.register("UNet2DModel")
    with pytest.raises(ValueError, match=r"^here needs a Nothing, .* so that it calls fdiff.register"):
        registry.find_component("Nothing", "here")


def test_what_is_registered_later_goes_first(names):
    @fdiff.register
    class UNet2DModel(fdiff.UNet2DModel): ...

    assert registry.lookup("UNet2DModel") is UNet2DModel is not fdiff.UNet2DModel


def test_classes_that_share_a_name_are_told_apart(names, sound, tmp_path):
    pipe, params = sound

    class Shared(type(pipe.unet)):
        norm_type: str = "layer_norm"

    class One(Shared): ...

    class Other(Shared): ...

    for cls, kind in ((One, "layer_norm"), (Other, "ada_norm_single")):
        fdiff.register(cls)
        fdiff.register(cls, "Transformer2DModel", when=lambda config, kind=kind: config.get("norm_type") == kind)
    for cls, kind in ((One, "layer_norm"), (Other, "ada_norm_single")):
        folder = tmp_path / kind
        pipe.replace(unet=cls(norm_type=kind)).save_pretrained(folder, params)
        for file in (folder / "model_index.json", folder / "unet" / "config.json"):
            assert f'"{cls.__name__}"' in file.read_text()
            file.write_text(file.read_text().replace(f'"{cls.__name__}"', '"Transformer2DModel"'))
        loaded, tree = fdiff.DiffusionPipeline.from_pretrained(folder)
        assert type(loaded.unet) is cls
        np.testing.assert_array_equal(loaded(tree, key=KEY, **QUICK).audios, pipe(params, key=KEY, **QUICK).audios)
        assert "unet: Transformer2DModel, 280 parameters" in summary(folder)
        assert type(cls.from_pretrained(folder / "unet")[0]) is cls
        assert convert(folder / "unet", tmp_path / "converted" / kind) == cls.__name__
        assert json.loads((tmp_path / "converted" / kind / "config.json").read_text())["norm_type"] == kind
    with pytest.raises(ValueError, match=r"describes a Transformer2DModel"):
        One.from_pretrained(tmp_path / "ada_norm_single" / "unet")


def test_a_scheduler_of_another_package(names, sound, tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Between(fdiff.DDIMScheduler):
        """What the class below derives from."""

    @fdiff.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class ToyDeepScheduler(Between):
        """DDIM that stops early."""

        rows_left_out: int = 0

        def plan(self, num_inference_steps=None, **options):
            plan = super().plan(num_inference_steps, **options)
            return plan[: len(plan) - self.rows_left_out]

    pipe, params = sound
    pipe.replace(scheduler=ToyDeepScheduler(rows_left_out=2)).save_pretrained(tmp_path / "deep", params)
    loaded, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "deep")
    assert loaded.scheduler == ToyDeepScheduler(rows_left_out=2)
    assert len(loaded.steps(tree, key=KEY, num_inference_steps=5)) == 3
    assert type(Scheduler.from_pretrained(tmp_path / "deep")) is ToyDeepScheduler
    plain = fdiff.DDIMScheduler.from_config(loaded.scheduler)  # keeps an option that only the other class has
    assert ToyDeepScheduler.from_config(plain) == loaded.scheduler
    with pytest.raises(ValueError, match=r"no scheduler has the option 'rows_lft_out'"):
        fdiff.DDIMScheduler.from_config({"rows_lft_out": 2})
