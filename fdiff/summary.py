"""What a model consists of, as a table."""

from __future__ import annotations

import json
from pathlib import Path

from fdiff import manifest, memory
from fdiff.manifest import Part


def summary(
    source: str | Path, *, revision: str | None = None, variant: str | None = None, config: str | Path | None = None
) -> str:
    """A table of a pipeline's or model's components, parameters and dtypes, the scheduler's options, and the memory.

    Weights are not read, only their headers, though those of a Hub repository are fetched if they are not in the cache.
    For the arguments and errors see `fdiff.manifest.read`.
    """
    found = manifest.read(source, revision=revision, variant=variant, config=config)
    lines = [f"{found.kind}  {source}"]
    for part in found.parts:
        if part.name or part.module is not None:
            lines.append(f"  {part.name}: {_said(part)}" if part.name else _said(part))
        lines += [f"    {name}: {json.dumps(value)}" for name, value in (part.options or {}).items()
                  if not name.startswith("_")]  # fmt: skip
    return "\n".join([*lines, *memory.told(found)])


def _said(part: Part) -> str:
    """Class, number of parameters, dtypes and sample size of one model; the class of anything else."""
    if part.module is None or part.tensors is None:
        return part.kind
    dtypes = sorted({str(tensor.dtype) for tensor in part.tensors.values()})
    size = getattr(part.module, "sample_size", None)
    samples = f", samples of {size}" if size else ""
    return f"{part.kind}, {part.module.count_parameters():,} parameters, {' and '.join(dtypes)}{samples}"
