"""The order in which torch goes through the layers of a U-Net, by which some adapters number them."""

import re
from collections.abc import Iterable

STAGES = ("down_blocks", "up_blocks", "mid_block")


def transformer_blocks(layers: Iterable[str]) -> list[str]:
    """The paths of the transformer blocks that have these layers, in torch's order."""
    return sort({match[0] for layer in layers if (match := re.match(r".*transformer_blocks\.\d+", layer))})


def sort(paths: Iterable[str]) -> list[str]:
    """Down, up, middle, and by the numbers in each path."""

    def place(path: str) -> tuple[int, ...]:
        stage = next((i for i, name in enumerate(STAGES) if path.startswith(name)), 0)
        return (stage, *(int(number) for number in re.findall(r"\.(\d+)", path)))

    return sorted(paths, key=place)
