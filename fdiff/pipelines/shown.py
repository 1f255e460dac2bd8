"""What notebooks show of pipelines and of what they draw."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

from fdiff import images
from fdiff.display import table
from fdiff.models.model import Model

MOST_PICTURES = 36  # of a sheet
LARGEST = 768  # pixels of a sheet's longer side


def pipeline_html(pipe: Any) -> str:
    """A pipeline: its components with their classes and parameters, and the options of its scheduler."""
    rows: list[tuple[Any, ...]] = []
    for field in dataclasses.fields(pipe):
        component = getattr(pipe, field.name)
        for one in component if isinstance(component, tuple) and component else (component,):
            name, told = type(one).__name__, ""
            if isinstance(one, Model):
                told = f"{one.count_parameters():,} parameters"
            elif hasattr(one, "to_config") and hasattr(one, "plan"):
                told = ", ".join(f"{key} {value}" for key, value in one.to_config().items() if not key.startswith("_"))
            elif one is None or isinstance(one, bool | int | float | str):
                name, told = str(one), ""
            rows.append((field.name, name, told))
    return table(type(pipe).__name__, rows)


def output_html(output: Any) -> str:
    """Pictures as one sheet; what is no picture by its shape and dtype."""
    pictures = output.images
    if not isinstance(pictures, list | tuple):
        shape = " x ".join(str(side) for side in getattr(pictures, "shape", ()))
        kind = f"{getattr(pictures, 'dtype', type(pictures).__name__)} array"
        return table(type(output).__name__, [("images", f"{kind}, {shape}" if shape else kind)])
    if not pictures:
        return table(type(output).__name__, [("images", "none")])
    some = list(pictures[:MOST_PICTURES])
    more = f" (of {len(pictures)}, these are {len(some)})" if len(some) < len(pictures) else ""
    sheet = images.grid([images.enlarge(one, 64) for one in some], gap=4)
    sheet.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    size = " x ".join(str(side) for side in pictures[0].size)
    return f'<figure><img src="data:image/png;base64,{data}"/><figcaption>{size} pixels{more}</figcaption></figure>'
