"""One small state dict in both of torch's formats, with every kind of tensor that checkpoints hold."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


def state_dict() -> OrderedDict:
    """Tensors that share storages, have strides, and are of every dtype."""
    base = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(
        plain=base,
        window=base[1:, ::2],
        transposed=base.t(),
        expanded=base[:1].expand(4, 6),
        scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base * 2),
    )
    dtypes = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 bool complex64 float8_e4m3fn"
    for name in dtypes.split():
        tensors[name] = base[:, :2].to(getattr(torch, name))
    tensors._metadata = OrderedDict([("", {"version": 1})])
    marked = torch.nn.Parameter(base + 1)
    marked.note = "an attribute"
    tensors["marked"] = marked
    return tensors


def make(folder: Path) -> None:
    """Write state_dict.pt (zip), legacy.pt, checkpoint.ckpt (nested) and their bytes, expected.npz."""
    tensors = state_dict()
    torch.save(tensors, folder / "state_dict.pt")
    torch.save(tensors, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    around = {"epoch": 3, "notes": [1, (2.5, None), {4}, b"xy", 2**70], "device": torch.device("cpu")}
    torch.save({"state_dict": tensors, **around}, folder / "checkpoint.ckpt", pickle_protocol=4)
    expected = {}
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        width = tensor.element_size() if tensor.numel() else 0
        expected[name] = raw.reshape(*tensor.shape, width)
    np.savez_compressed(folder / "expected.npz", **expected)
