"""Progress bars: a widget in a notebook that can show one, and text everywhere else."""

from __future__ import annotations

import warnings
from typing import Any


def bar(iterable: Any = None, **options: Any) -> Any:
    """tqdm's bar over an iterable, with tqdm's options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm complains of notebooks without ipywidgets, and shows text there
        from tqdm.auto import tqdm
    return tqdm(iterable, **options)
