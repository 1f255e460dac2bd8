"""fdiff: diffusion models in JAX: pure functions, Flax modules, checkpoints straight from the Hugging Face Hub."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fdiff.api import *  # noqa: F403
    from fdiff.api import __all__ as __all__
    from fdiff.models import *  # noqa: F403  which mypy does not see through `__all__ += models.__all__`
    from fdiff.pipelines import *  # noqa: F403
    from fdiff.schedulers import *  # noqa: F403
    from fdiff.tokenizers import *  # noqa: F403
else:  # at the first name that is asked for: JAX takes a second to import, and `fdiff --help` does without it (PEP 562)

    def __getattr__(name: str) -> Any:
        from importlib import import_module, util

        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module 'fdiff' has no attribute {name!r}")
        if util.find_spec(f"fdiff.{name}"):
            return import_module(f"fdiff.{name}")
        api = import_module("fdiff.api")
        if name != "__all__" and name not in api.__all__:
            raise AttributeError(f"module 'fdiff' has no attribute {name!r}")
        globals().update({each: getattr(api, each) for each in ("__all__", *api.__all__)})
        return globals()[name]

    def __dir__() -> list[str]:
        from fdiff import api

        return sorted({*globals(), *api.__all__})
