"""Compare pipelines with those of diffusers, run live."""

import numpy as np


def nchw(array):
    import torch

    return torch.from_numpy(np.array(np.moveaxis(np.asarray(array, np.float32), -1, 1)))


def nhwc(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def generator(seed):
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pair(folder, theirs, **components):
    """(theirs, ours, params): the pipeline of diffusers, saved and loaded by fdiff."""
    import fdiff

    quiet(theirs).save_pretrained(folder)
    return theirs, *fdiff.DiffusionPipeline.from_pretrained(folder, **components)


def other(pair, name, more=None, our_components=None, their_components=None, ours=True):
    """The pair as another pipeline of that name, of the same components."""
    import diffusers

    import fdiff

    theirs, mine, params = pair
    cls = getattr(diffusers, name)
    known = cls.__init__.__code__.co_varnames
    components = {key: value for key, value in theirs.components.items() if key in known} | (their_components or {})
    components |= {"requires_safety_checker": False} if "requires_safety_checker" in known else {}
    if ours:
        mine = getattr(fdiff, name).from_pipe(mine, **our_components or {})
    return quiet(cls(**components)), mine, params | (more or {})


def latents_of(pipe, *inputs, **options):
    """The latents (b, h, w, c) that a pipeline of diffusers ends with."""
    import torch

    with torch.no_grad():
        return nhwc(pipe(*inputs, output_type="latent", **options).images)


def assert_close(ours, theirs, tolerance=1e-3):
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < tolerance, f"off by {error:.2g} of the largest value"
    return error
