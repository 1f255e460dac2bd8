"""Balls and sticks, drawn by Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fdiff.molecules.bonds import orders_of
from fdiff.molecules.graphs import Molecule, Molecules, unpack

if TYPE_CHECKING:
    from PIL import Image

# Colours that chemists know elements by (Corey, Pauling and Koltun), and radii in angstrom, a third of van der Waals'.
COLOURS = {"H": "#f0f0f0", "B": "#ffb5b5", "C": "#505050", "N": "#3050f8", "O": "#f03020", "F": "#80d050",
           "Si": "#f0c8a0", "P": "#ff8000", "S": "#e6c62e", "Cl": "#30d030", "Br": "#a62929", "I": "#940094"}
RADII = {"H": 0.3, "C": 0.45, "N": 0.43, "O": 0.42, "F": 0.4}
# SUPER: how many times finer than asked for it is drawn, for smooth edges
OTHER, RADIUS, STICK, SUPER = "#d060c0", 0.5, 0.12, 3


def draw(molecules: Molecules, size: int = 256) -> list[Image.Image]:
    """A square picture of each molecule, turned so that it is broad and flat; bonds are those of `orders_of`."""
    return [_picture(one, size) for one in unpack(molecules)]


def _picture(one: Molecule, size: int) -> Image.Image:
    from PIL import Image, ImageDraw

    places, radii = _turned(one.positions), [RADII.get(symbol, RADIUS) for symbol in one.symbols]
    extent = max(np.abs(places[:, :2]).max() + max(radii), 2.0)
    scale = SUPER * size / 2 / (1.08 * extent)
    sheet = Image.new("RGB", (SUPER * size,) * 2, "white")
    pen, orders = ImageDraw.Draw(sheet), orders_of(one)
    flat = places[:, :2] * (scale, -scale) + SUPER * size / 2
    things = [(places[i, 2], i, i) for i in range(len(places))]
    things += [((places[i, 2] + places[j, 2]) / 2, int(i), int(j)) for i, j in np.argwhere(np.triu(orders))]
    for _, i, j in sorted(things):  # what is far away first
        if i == j:
            ball = _ball(COLOURS.get(one.symbols[i], OTHER), max(2, round(radii[i] * scale)))
            sheet.paste(ball, tuple(np.round(flat[i] - ball.width / 2).astype(int).tolist()), ball)
        else:
            _bond(pen, flat[i], flat[j], int(orders[i, j]), STICK * scale, (one.symbols[i], one.symbols[j]))
    return sheet.resize((size, size), Image.Resampling.LANCZOS)


def _turned(positions: np.ndarray) -> np.ndarray:
    """The positions about their middle, the longest axis across and the shortest towards who looks."""
    about = positions - positions.mean(0)
    axes = np.linalg.svd(about, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a turn alone, so that left hands stay such
    return about @ axes.T


def _bond(pen, a: np.ndarray, b: np.ndarray, order: int, width: float, symbols: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    """As many parallel sticks as the order, half of each in the colour of either atom, a little darker."""
    along = b - a
    aside = np.array([-along[1], along[0]]) / max(np.hypot(*along), 1e-6)
    thin = width if order == 1 else 0.6 * width
    for k in range(order):
        shift = aside * (k - (order - 1) / 2) * 1.5 * width
        start, end = a + shift, b + shift
        for (p, q), symbol in zip(((start, (start + end) / 2), ((start + end) / 2, end)), symbols, strict=True):
            colour = tuple(round(0.8 * part) for part in _rgb(COLOURS.get(symbol, OTHER)))
            pen.line([*p.tolist(), *q.tolist()], fill=colour, width=max(1, round(thin)))


def _ball(colour: str, radius: int) -> Image.Image:
    """A ball lit from the upper left, on nothing."""
    from PIL import Image

    y, x = (np.mgrid[-radius : radius + 1, -radius : radius + 1] / radius)
    inside = x**2 + y**2 <= 1
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    light = np.clip(0.45 + 0.6 * (z * 0.75 - 0.45 * x - 0.45 * y), 0.3, 1)
    shine = np.clip(z * 0.75 - 0.45 * x - 0.45 * y, 0, 1) ** 24 * 0.6
    shown = np.array(_rgb(colour)) * light[..., None]
    shown = shown + (255 - shown) * shine[..., None]
    alpha = np.where(inside, 255, 0)[..., None]
    return Image.fromarray(np.concatenate([shown, alpha], -1).astype(np.uint8), "RGBA")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
