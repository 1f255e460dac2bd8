"""A subject from a few pictures (DreamBooth, Ruiz et al. 2023), beside which its class is kept as the base draws it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdiff import hub, images, keys
from fdiff.bars import bar
from fdiff.pipelines.task import option
from fdiff.training import data
from fdiff.training.data import Source
from fdiff.training.loader import Preparing
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Base
from fdiff.training.tasks.lora import LoraSettings, changes, low_rank
from fdiff.training.tasks.material import ENCODED, Material, material
from fdiff.training.tasks.text_to_image import whole

CLASS = "class_images"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamboothSettings(LoraSettings):
    """Of a subject."""

    learning_rate: float = option(5e-6)
    prompt: str = option("", "what the pictures show: a rare word and the class, such as a photo of sks dog")
    class_prompt: str = option("", "the class alone, such as a photo of a dog, which is then kept as it is")
    class_images: int = setting(
        100, "pictures of the class, drawn by the model into the output folder and used again", least=1
    )
    prior_weight: float = setting(1.0, "of the loss on the pictures of the class", least=0)
    adapt: bool = option(False, "train small changes, see rank and layers, in place of the whole U-Net")

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        super().__post_init__()
        if self.text_layers and not self.adapt:
            raise ValueError("text_layers are given without adapt; give both, or neither")
        if self.buckets and self.class_prompt:
            raise ValueError(f"buckets is {self.buckets}, and pictures of the class, which are of one shape, share "
                             "batches with the subject's; leave buckets or class_prompt out")


def recipe(settings: DreamboothSettings, source: Source, folder: Path) -> Recipe:
    """The subject of a few pictures, learned by the U-Net or by small changes of it.

        loss = loss of the subject's pictures + prior_weight * loss of the class'            (Ruiz et al. 2023, eq. 2)
    """
    base = latents.load(settings.model)
    trees = changes(base, settings) if settings.adapt else None
    where, trains_text = folder / ENCODED, bool(settings.text_layers)
    found = material(base, settings, source, where, trains_text=trains_text)
    if settings.class_prompt:
        drawn = class_pictures(base, settings, found.size, folder / CLASS)
        prior = material(base, settings, drawn, where / CLASS, trains_text=trains_text)
        found = both(found, prior, settings.prior_weight)
    return whole(base, settings, found) if trees is None else low_rank(base, settings, found, trees)


def class_pictures(base: Base, settings: DreamboothSettings, size: tuple[int, int], folder: Path) -> Source:
    """Pictures of the class in that folder; those that are missing are drawn, the i-th from the seed's i-th key.

    Raises ValueError where those that are there show something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:05d}.png" for i in range(settings.class_images)]
    lines = [json.dumps({"file_name": file.name, "text": settings.class_prompt}) for file in files]
    said = folder / data.METADATA
    if said.exists() and json.loads(said.read_text(encoding="utf-8").splitlines()[0])["text"] != settings.class_prompt:
        raise ValueError(f"{folder} holds pictures of another class_prompt; remove it")
    with hub.replacing(said) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    missing = [i for i, file in enumerate(files) if not file.exists()]
    key = keys.fold_in(jax.random.key(settings.seed), 2**31)
    for i in bar(missing, desc="class pictures", unit="picture") if missing else ():
        picture = base.pipe(
            base.params, settings.class_prompt, key=keys.fold_in(key, i), height=size[0], width=size[1], progress=False
        ).images[0]
        images.save(picture, files[i])
    return data.find(folder)


@dataclasses.dataclass(frozen=True)
class Paired:
    """Samples of the subject, each beside one of the class; the shorter of the two begins anew."""

    subject: Source
    prior: Source
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return max(len(self.subject), len(self.prior))

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {"subject": self.subject[i % len(self.subject)], "prior": self.prior[i % len(self.prior)]}

    def name(self, i: int) -> str:
        """The names of the two."""
        return f"{self.subject.name(i % len(self.subject))} or {self.prior.name(i % len(self.prior))}"


@dataclasses.dataclass(frozen=True)
class PreparePair:
    """Prepares both samples of a pair: their arrays, by "subject name" and "prior name"."""

    subject: Preparing
    prior: Preparing

    def __call__(self, sample: Any, random: np.random.Generator) -> dict[str, Any]:
        """The arrays."""
        return {
            f"{kind} {name}": array
            for kind in ("subject", "prior")
            for name, array in getattr(self, kind)(sample[kind], random).items()
        }


def both(found: Material, prior: Material, share: float) -> Material:
    """The two as one: a batch holds as many of each, and "share", so that the mean is a sum of the two means."""
    def collate(arrays: dict[str, Any]) -> Any:
        parts = [
            one.collate({name.partition(" ")[2]: array for name, array in arrays.items() if name.startswith(kind)})
            for kind, one in (("subject", found), ("prior", prior))
        ]
        count = len(jax.tree.leaves(parts[0])[0])
        batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return batch | {"share": np.repeat(np.array([2.0, 2.0 * share], np.float32), count)}

    return found._replace(
        source=Paired(found.source, prior.source), prepare=PreparePair(found.prepare, prior.prepare), collate=collate
    )


dreambooth = Task(DreamboothSettings, recipe, "A subject of a few pictures, taught to a text-to-image model.")
