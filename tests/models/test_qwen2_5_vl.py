"""What Qwen2.5-VL sees, and how that stands in a text."""

import jax
import numpy as np
import pytest

from fdiff.models import Qwen2_5_VLForConditionalGeneration as Qwen
from fdiff.models.qwen2_5_vl import places
from tests.models.compare import assert_close
from tests.reference import make_seeing_lm as cases

OPTIONS = cases.CONFIGS["qwen2_5_vl"][1]
TOKEN, SIZES = OPTIONS["image_token_id"], [(3, 2), (2, 4)]  # windows that are whole, and windows that are not


def text():
    """Two texts with two pictures each, the second with padding behind it."""
    random = np.random.default_rng(0)
    parts = [random.integers(0, 38, (2, 3)), np.full((2, 6), TOKEN), random.integers(0, 38, (2, 2)),
             np.full((2, 8), TOKEN), random.integers(0, 38, (2, 4))]  # fmt: skip
    mask = np.ones((2, 23), int)
    mask[1, -2:] = 0
    return np.concatenate(parts, axis=1), mask


def pictures():
    random = np.random.default_rng(1)
    return [random.standard_normal((1, 4 * rows, 4 * columns, 3)).astype(np.float32) for rows, columns in SIZES]


def states_of(model, params, ids, mask, where, shown):
    return jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays[:2], (1, -1), arrays[2],
                                                       shown=arrays[3]))(params, ids, mask, where, shown)  # fmt: skip


@pytest.mark.parity
def test_what_is_seen_and_read_live(tmp_path):
    """transformers must be told which tokens are pictures, or it takes all for text."""
    torch = pytest.importorskip("torch")
    theirs = cases.build("qwen2_5_vl")
    theirs.save_pretrained(tmp_path)
    model, params = Qwen.from_pretrained(tmp_path, dtype="float32")
    ids, mask = text()
    once = np.concatenate([cases.pixels(one[0], 2, 2, 2) for one in pictures()])
    grids = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in SIZES] * 2)
    with torch.no_grad():
        found = theirs(
            torch.from_numpy(ids), torch.from_numpy(mask), pixel_values=torch.from_numpy(np.concatenate([once] * 2)),
            image_grid_thw=grids, mm_token_type_ids=torch.from_numpy((ids == TOKEN).astype(int)),
            output_hidden_states=True,
        ).hidden_states  # fmt: skip
    where = places(ids, TOKEN, SIZES)
    for ours, wanted in zip(states_of(model, params, ids, mask, where, pictures()), (found[1], found[-1]), strict=True):
        assert_close(np.where(mask[..., None], ours, 0), np.where(mask[..., None], wanted, 0))


def test_places():
    """A picture goes on in rows and columns only, and what is behind it begins past its longer side."""
    ids = np.array([[7, 39, 39, 39, 39, 39, 39, 8, 9]])
    found = places(ids, 39, [(2, 3)])[0]
    assert found[0].tolist() == [0, 0, 0]
    assert found[1:7].tolist() == [[1, 1 + row, 1 + column] for row in range(2) for column in range(3)]
    assert found[7:].tolist() == [[4] * 3, [5] * 3]
    with pytest.raises(ValueError, match="6 tokens of a text stand for pictures, which are 4; a prompt must hold none"):
        places(ids, 39, [(2, 2)])


def test_a_patch_sees_its_window_alone(reference):
    """In blocks that do not see all: of two windows side by side, one does not know the other."""
    model, params = Qwen.from_pretrained(reference / "seeing_lm/qwen2_5_vl", dtype="float32")
    picture = np.random.default_rng(2).standard_normal((1, 8, 12, 3)).astype(np.float32)

    def seen(whole, picture):
        vision = {**model.vision_config, "fullatt_block_indexes": whole}
        tower = model.clone(vision_config=vision).tower(parent=None)
        return np.asarray(jax.jit(tower.apply)({"params": params["visual"]}, picture)).reshape(2, 3, -1)

    other = picture.copy()
    other[:, :, 8:] = 0
    near, far = (seen(whole, picture) - seen(whole, other) for whole in ((), (1,)))
    assert np.abs(near[:, :2]).max() == 0 < 1e-3 < np.abs(near[:, 2]).max()
    assert np.abs(far[:, :2]).max() > 1e-3


def test_wrong_options_and_pictures_are_told(reference):
    def told(match, **vision):
        with pytest.raises(ValueError, match=match):
            Qwen.from_config({**OPTIONS, "vision_config": {**cases.QWEN2_VISION, **vision}})

    told("out_hidden_size 8 must be hidden_size, 16", out_hidden_size=8)
    told("depth is -1", depth=-1)
    rotary = {**cases.QWEN2_ROTARY, "mrope_section": [1, 1, 1]}
    with pytest.raises(ValueError, match=r"mrope_section \(1, 1, 1\) must be three numbers that add up to 8 / 2"):
        Qwen.from_config({**OPTIONS, "text_config": {**OPTIONS["text_config"], "rope_parameters": rotary}})
    with pytest.raises(ValueError, match="num_attention_heads 3 must divide hidden_size 16"):
        Qwen.from_config({"text_config": {**OPTIONS["text_config"], "num_attention_heads": 3}})
    blind = Qwen.from_config({"text_config": OPTIONS["text_config"]})
    with pytest.raises(ValueError, match="this Qwen2_5_VLForConditionalGeneration sees no pictures"):
        blind.apply({"params": blind.init_params(jax.random.key(0))}, text()[0], shown=pictures())
    model, params = Qwen.from_pretrained(reference / "seeing_lm/qwen2_5_vl", dtype="float32")
    with pytest.raises(ValueError, match=r"height and width multiples of 4; they are \(1, 6, 8, 3\)"):
        model.apply({"params": params}, text()[0], shown=[np.zeros((1, 6, 8, 3))])
