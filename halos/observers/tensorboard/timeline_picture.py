"""The workers' timeline as a picture: a row each, coloured by what they did, over simulated time."""

from __future__ import annotations

import io
from typing import Optional

import numpy as np

from halos.observers.tensorboard.timeline import STATES, Band
from halos.observers.units import duration
from halos.world.cluster import Cluster

COLUMNS = 960  # pixels of time
HEIGHT = 640  # pixels, about, of all rows
LOWEST, HIGHEST = 10, 22  # pixels of a row
LEFT, TOP, BOTTOM, RIGHT = 200, 62, 44, 24  # margins
COLOURS = {  # told apart by the colour-blind as well
    "compute": (0, 114, 178),
    "lost": (204, 121, 167),
    "transfer": (240, 180, 60),
    "idle": (236, 236, 236),
    "down": (60, 60, 60),
}
SAID = {
    "compute": "computing",
    "lost": "computing in vain (lost)",
    "transfer": "transferring",
    "idle": "idle",
    "down": "down",
}
ALWAYS = ("compute", "transfer", "idle")  # in the legend; the others if there are any
NICE = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)  # seconds


def png(title: str, cluster: Cluster, bands: list[Band], shares: np.ndarray, now: float) -> tuple[bytes, int, int]:
    """The picture as PNG, its width and its height, of `shares` (rows, STATES, COLUMNS) of the time up to `now`."""
    from PIL import Image, ImageDraw, ImageFont  # TensorBoard needs it; nobody else does

    tall = max(LOWEST, min(HIGHEST, HEIGHT // len(bands)))
    width, height = LEFT + COLUMNS + RIGHT, TOP + tall * len(bands) + BOTTOM
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[TOP : height - BOTTOM, LEFT : LEFT + COLUMNS] = _coloured(shares, tall)
    picture = Image.fromarray(pixels)
    draw, black, grey = ImageDraw.Draw(picture), (20, 20, 20), (110, 110, 110)
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    draw.text((12, 8), title, black, font)
    x = LEFT
    present = shares.max(axis=(0, 2)) > 0.005
    for state in [state for state, there in zip(STATES, present) if there or state in ALWAYS]:
        draw.rectangle((x, 38, x + 12, 50), COLOURS[state], grey)
        draw.text((x + 18, 38), SAID[state], black, small)
        x += 36 + int(draw.textlength(SAID[state], small))
    before: Optional[int] = None
    for row, band in enumerate(bands):
        y = TOP + tall * row
        draw.text((LEFT - 8, y + tall // 2), _name(cluster, band), black, small, "rm")
        if band.region != before:
            draw.line((12, y, LEFT + COLUMNS, y), grey)
        before = band.region
    below = height - BOTTOM
    draw.line((LEFT, below, LEFT + COLUMNS, below), grey)
    for moment in ticks(now):
        x = LEFT + round(COLUMNS * moment / now)
        draw.line((x, below, x, below + 4), grey)
        draw.text((x, below + 7), duration(moment).replace(".0 ", " "), black, small, "ma")
    draw.text((LEFT + COLUMNS // 2, below + 24), "simulated time", black, small, "ma")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue(), width, height


def ticks(now: float) -> list[float]:
    """Moments to be named on an axis from 0 to `now` seconds: ten at most, at what people call round times."""
    step = 86400 * _round(now / 9 / 86400) if now / 9 > NICE[-1] else _round(now / 9)
    return [step * index for index in range(int(now / step * (1 + 1e-9)) + 1)]


def _round(least: float) -> float:
    """The first round number, of seconds if it is one or more, from `least` on."""
    if least > 1 and least <= NICE[-1]:
        return next(nice for nice in NICE if nice >= least)
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9)))


def _coloured(shares: np.ndarray, tall: int) -> np.ndarray:
    """(rows · tall, columns, 3): in each column of a row the states are stacked, the first at the bottom."""
    upto = np.cumsum(shares, axis=1)[:, :-1]  # (rows, 4, columns)
    heights = (tall - 1 - np.arange(tall) + 0.5) / tall  # of the middles of pixels, from the bottom
    state = (heights[None, :, None, None] > upto[:, None]).sum(axis=2)  # (rows, tall, columns)
    colours: np.ndarray = np.array([COLOURS[name] for name in STATES], np.uint8)[state]
    colours[:, 0] = 255  # a line between rows
    return colours.reshape(-1, shares.shape[2], 3)


def _name(cluster: Cluster, band: Band) -> str:
    region = cluster.regions[band.region].name
    region = region if len(region) <= 16 else region[:15] + "…"
    first, last = band.workers[0].id, band.workers[-1].id
    return f"{region}:  worker {first}" if first == last else f"{region}:  workers {first}–{last}"
