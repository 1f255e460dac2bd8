"""What diffusers' schedulers compute for every case of tests/schedulers/cases."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))


def make(folder: Path) -> None:
    """One npz for each Hub class: case/timesteps, case/start, case/x."""
    from tests.schedulers.cases import all_cases
    from tests.schedulers.runs import run_diffusers

    arrays: dict[str, dict[str, np.ndarray]] = {}
    for case in all_cases():
        for key, value in run_diffusers(case).items():
            arrays.setdefault(case.scheduler, {})[f"{case.id}/{key}"] = value
    for name, content in arrays.items():
        np.savez_compressed(folder / f"{name}.npz", **content)
