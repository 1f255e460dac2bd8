"""What every model class makes of a config.json."""

import pytest

import fdiff

MODELS = [getattr(fdiff, name) for name in fdiff.models.__all__ if name != "Model"]


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_how_weights_were_averaged_says_nothing_about_the_network(cls):
    averaging = {
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "min_decay": 0.0,
        "optimization_step": 1200,
        "power": 2 / 3,
        "update_after_step": 0,
        "use_ema_warmup": False,
    }
    assert cls.from_config(averaging) == cls.from_config({})
