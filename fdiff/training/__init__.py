"""Training: losses, one step, and averaged parameters."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fdiff.training.averages import Snapshot, post_hoc, power, warmed
    from fdiff.training.loss import denoising_loss, logit_normal, min_snr, p2, stratified, uniform, withhold
    from fdiff.training.step import TrainState, init, train_step
else:  # as in fdiff itself: what a command line says of data and folders is looked at before JAX is imported

    def __getattr__(name: str) -> Any:
        from importlib import import_module, util

        if not name.startswith("_") and util.find_spec(f"fdiff.training.{name}"):
            return import_module(f"fdiff.training.{name}")
        if name in __all__:
            modules = (import_module(f"fdiff.training.{one}") for one in ("step", "loss", "averages"))
            return next(getattr(module, name) for module in modules if hasattr(module, name))
        raise AttributeError(f"module 'fdiff.training' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Snapshot",
    "TrainState",
    "denoising_loss",
    "init",
    "logit_normal",
    "min_snr",
    "p2",
    "post_hoc",
    "power",
    "stratified",
    "train_step",
    "uniform",
    "warmed",
    "withhold",
]
