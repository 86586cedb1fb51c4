"""Scenes of handwritten digits and coloured shapes: composition, rendering, and what a person perceives in them.

A scene is a 4 x 4 grid of cells of 16 x 16 pixels, some of which hold an item. An item carries *how it looks* (the
glyph, a continuous hue, a continuous rotation, how much of it is hidden) and, derived from that, *how people read it*:
the probability of each symbol, and a hue that each person names with boundaries of their own. Ambiguity is therefore a
property of the picture: a smudged 3 is read as an 8 by some, a hue between green and blue gets both names, a square
turned by some 20 degrees is a diamond to a few, and a half-hidden item is missed now and then.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from quantrust.embedded.digits import DigitBank

GRID = 4
CELL = 16
SIZE = GRID * CELL
DIGITS = tuple("0123456789")
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "star")
SYMBOLS = DIGITS + SHAPES
# Hues in degrees at which a colour word is most typical; white has no hue.
HUES = {"red": 0.0, "orange": 32.0, "yellow": 56.0, "green": 120.0, "blue": 222.0, "purple": 275.0, "pink": 325.0}
COLOURS = (*HUES, "white")
# Severity of a degradation from which on people begin to see nothing at all.
ILLEGIBLE = 3.2
# Share of the pictures of the multimodal shift that are spoilt altogether, as a photographer who cannot see would
# take them now and then (Gurari et al., "VizWiz Grand Challenge", CVPR 2018, name blur, darkness and framing).
SPOILT = 0.11
# Spread, in degrees of hue, of where one person draws the line between two colour words.
NAMING_SPREAD = 7.0


@dataclass(frozen=True)
class Item:
    """Something in one cell of a scene.

    Attributes
    ----------
    row, column : int
        Cell, counted from the top left.
    symbol : str
        What was drawn, one of `SYMBOLS`.
    glyph : int or None
        Row of the digit bank, for digits.
    hue : float or None
        Degrees; None is white.
    rotation : float
        Degrees, anticlockwise.
    scale : float
        Side of the item as a share of the cell.
    offset : tuple of float
        Shift of the centre against the cell's, in pixels (down, right).
    hidden : float in [0, 1]
        Share of the item behind an occluding bar.
    reading : tuple of float, length 16
        Probability that an attentive person reads each of `SYMBOLS`; adds up to 1.
    """

    row: int
    column: int
    symbol: str
    glyph: int | None
    hue: float | None
    rotation: float
    scale: float
    offset: tuple[float, float]
    hidden: float
    reading: tuple[float, ...]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre in pixels from the top left (down, right)."""
        return (self.row + 0.5) * CELL + self.offset[0], (self.column + 0.5) * CELL + self.offset[1]


@dataclass(frozen=True)
class Degradation:
    """What happens to a picture after it was composed; the default leaves it as it is.

    Attributes
    ----------
    blur : float
        Standard deviation of a Gaussian blur in pixels.
    light : float
        Factor on all pixel values.
    noise : float
        Standard deviation of additive noise, pixel values in [0, 1].
    turn : float
        Rotation of the whole picture in degrees.
    shift : tuple of float
        Translation of the picture in pixels (down, right); what leaves the frame is lost.
    """

    blur: float = 0.0
    light: float = 1.0
    noise: float = 0.0
    turn: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def severity(self) -> float:
        """How much harder the picture is to read: 0 for a clean one, about 1 for a mildly degraded one."""
        return (
            self.blur / 0.8
            + max(0.0, 0.75 - self.light) / 0.3
            + self.noise / (0.12 * max(self.light, 0.1))
            + math.hypot(*self.shift) / 16
        )


@dataclass(frozen=True)
class Scene:
    """Items in distinct cells, a background, and the degradation of the picture.

    Attributes
    ----------
    items : tuple of Item
        In reading order.
    background : tuple of float
        Base grey level, and its slope to the bottom and to the right over the picture.
    clutter : tuple of tuple of float
        Thin lines (x0, y0, x1, y1, grey) behind the items.
    degradation : Degradation
        Applied last.
    noise_seed : int
        Seed of the noise of the degradation.
    """

    items: tuple[Item, ...]
    background: tuple[float, float, float]
    clutter: tuple[tuple[float, ...], ...]
    degradation: Degradation
    noise_seed: int


@dataclass(frozen=True)
class Percept:
    """How one person sees one item, in the terms that questions use.

    `visible` is False where the person missed it; `row` and `column` are the cell, `y` and `x` the centre in pixels.
    """

    symbol: str
    colour: str
    visible: bool
    row: int
    column: int
    y: float
    x: float

    @property
    def is_digit(self) -> bool:
        """Whether the person took the item for a digit."""
        return self.symbol in DIGITS


def name_colour(hue: float | None, shift: float = 0.0) -> str:
    """Return the colour word whose typical hue lies nearest to `hue` + `shift`, degrees on the colour circle."""
    if hue is None:
        return "white"
    return min(HUES, key=lambda name: abs((hue + shift - HUES[name] + 180) % 360 - 180))


def _sharpen(reading: np.ndarray, power: float) -> np.ndarray:
    weights = np.power(np.maximum(reading, 1e-6), power)
    return weights / weights.sum()


def _read_digit(posterior: np.ndarray) -> tuple[float, ...]:
    # People read a smudged digit better than a linear model does, hence the power.
    return (*_sharpen(posterior, 2.0), *([0.0] * len(SHAPES)))


def _read_shape(symbol: str, rotation: float, hidden: float) -> tuple[float, ...]:
    weights = dict.fromkeys(SHAPES, 0.0)
    weights[symbol] = 1.0
    if symbol in ("square", "diamond"):
        # A square turned by 45 degrees is what people call a diamond; the words meet at 22.5 degrees.
        turned = abs((rotation + 45) % 90 - 45)
        diamond = 1 / (1 + math.exp(-(turned - 22.5) / 3.0))
        weights["square"], weights["diamond"] = 1 - diamond, diamond
    confused = {"circle": "star", "star": "circle", "triangle": "diamond", "cross": "star"}.get(symbol)
    if confused:
        weights[confused] += 0.5 * max(0.0, hidden - 0.25)
    total = sum(weights.values())
    return (*([0.0] * len(DIGITS)), *(weights[name] / total for name in SHAPES))


def _compose_item(rng: np.random.Generator, bank: DigitBank, row: int, column: int, digit: bool) -> Item:
    hidden = float(rng.uniform(0.15, 0.5)) if rng.random() < 0.15 else 0.0
    colour = COLOURS[rng.integers(len(COLOURS))]
    if colour == "white":
        hue = None
    elif rng.random() < 0.12:
        names = list(HUES)
        after = HUES[names[(names.index(colour) + 1) % len(names)]] or 360.0
        hue = float(HUES[colour] + rng.uniform(0.35, 0.65) * (after - HUES[colour]))
    else:
        hue = float((HUES[colour] + rng.normal(0, 4.0)) % 360)
    scale, offset = float(rng.uniform(0.72, 1.0)), (float(rng.uniform(-1.5, 1.5)), float(rng.uniform(-1.5, 1.5)))
    if digit:
        glyph = int(rng.integers(len(bank.labels)))
        rotation = float(rng.normal(0, 8.0))
        symbol, reading = DIGITS[bank.labels[glyph]], _read_digit(bank.posterior[glyph])
        if hidden:
            reading = tuple(_sharpen(np.asarray(reading), 1 - 0.8 * hidden))
            reading = (*reading[: len(DIGITS)], *([0.0] * len(SHAPES)))
            reading = tuple(value / sum(reading) for value in reading)
    else:
        glyph, symbol = None, SHAPES[rng.integers(len(SHAPES))]
        spread = 7.0 if symbol in ("square", "diamond") else 25.0
        rotation = float(rng.normal(45.0 if symbol == "diamond" else 0.0, spread))
        reading = _read_shape(symbol, rotation, hidden)
    return Item(row, column, symbol, glyph, hue, rotation, scale, offset, hidden, tuple(float(p) for p in reading))


def compose_scene(rng: np.random.Generator, bank: DigitBank, degradation: Degradation) -> Scene:
    """Draw a scene of three to seven items, digits and shapes mixed, in distinct cells."""
    n = int(rng.choice([3, 4, 5, 6, 7], p=[0.15, 0.25, 0.25, 0.2, 0.15]))
    cells = np.sort(rng.choice(GRID * GRID, size=n, replace=False))
    digits = rng.random(n) < 0.55
    # Every scene holds a digit and a shape, so that most question kinds apply.
    digits[rng.permutation(n)[:2]] = [True, False]
    items = tuple(
        _compose_item(rng, bank, int(cell) // GRID, int(cell) % GRID, bool(d))
        for cell, d in zip(cells, digits, strict=True)
    )
    background = (float(rng.uniform(0.05, 0.28)), float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.1, 0.1)))
    clutter = tuple(
        (*(float(v) for v in rng.uniform(0, SIZE, size=4)), float(rng.uniform(0.15, 0.4)))
        for _ in range(int(rng.integers(0, 4)))
    )
    return Scene(items, background, clutter, degradation, int(rng.integers(2**31)))


def mild_degradation(rng: np.random.Generator) -> Degradation:
    """Draw the degradation of in-distribution pictures: half of them stay clean."""
    if rng.random() < 0.5:
        return Degradation(noise=0.01)
    return Degradation(
        blur=float(rng.uniform(0.0, 0.7)), light=float(rng.uniform(0.65, 1.0)), noise=float(rng.uniform(0.01, 0.07))
    )


def strong_degradation(rng: np.random.Generator) -> Degradation:
    """Draw the degradation of the multimodal shift: blur, low light, noise and bad framing, one to three at a time.

    A few pictures are spoilt altogether, so that nobody can answer questions about them.
    """
    if rng.random() < SPOILT:
        return _spoilt(rng)
    chosen = set(rng.permutation(["blur", "light", "noise", "framing"])[: int(rng.integers(1, 4))].tolist())
    framing = "framing" in chosen
    return Degradation(
        blur=float(rng.uniform(0.5, 1.0)) if "blur" in chosen else 0.2,
        light=float(rng.uniform(0.35, 0.65)) if "light" in chosen else 0.9,
        noise=float(rng.uniform(0.04, 0.09)) if "noise" in chosen else 0.02,
        turn=float(rng.uniform(-12, 12)) if framing else 0.0,
        shift=(float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6))) if framing else (0.0, 0.0),
    )


def _spoilt(rng: np.random.Generator) -> Degradation:
    """Draw a degradation that leaves nothing to see: far out of focus, dark, or pointed elsewhere."""
    fault = int(rng.integers(3))
    if fault == 0:
        return Degradation(blur=float(rng.uniform(6.0, 10.0)), light=float(rng.uniform(0.6, 0.9)), noise=0.02)
    if fault == 1:
        return Degradation(light=float(rng.uniform(0.03, 0.07)), noise=0.04)
    away = float(rng.uniform(0.9, 1.2)) * SIZE * (1 if rng.random() < 0.5 else -1)
    along = float(rng.uniform(-0.3, 0.3)) * SIZE
    return Degradation(blur=0.3, light=0.9, noise=0.02, shift=(away, along) if rng.random() < 0.5 else (along, away))


def _colour_value(hue: float | None) -> np.ndarray:
    if hue is None:
        return np.array([0.96, 0.96, 0.96])
    sextant = (hue % 360) / 60
    rising = 1 - abs(sextant % 2 - 1)
    red, green, blue = [(1, rising, 0), (rising, 1, 0), (0, 1, rising), (0, rising, 1), (rising, 0, 1), (1, 0, rising)][
        int(sextant) % 6
    ]
    return 0.10 + 0.86 * np.array([red, green, blue])


def _star(centre: float, radius: float, angle: float) -> list[tuple[float, float]]:
    radii = [radius if k % 2 == 0 else 0.42 * radius for k in range(10)]
    return [
        (centre + r * math.sin(angle + k * math.pi / 5), centre - r * math.cos(angle + k * math.pi / 5))
        for k, r in enumerate(radii)
    ]


def _regular(centre: float, radius: float, corners: int, angle: float) -> list[tuple[float, float]]:
    return [
        (
            centre + radius * math.sin(angle + 2 * math.pi * k / corners),
            centre - radius * math.cos(angle + 2 * math.pi * k / corners),
        )
        for k in range(corners)
    ]


def _item_mask(item: Item, bank: DigitBank) -> Image.Image:
    """Return the item's coverage, a grey image of 20 x 20 pixels centred on the item."""
    fine, centre = 80, 40.0
    side = item.scale * CELL * 4
    mask = Image.new("L", (fine, fine))
    if item.glyph is not None:
        ink = Image.fromarray(np.uint8(255 * np.clip(bank.glyphs[item.glyph] * 1.25, 0, 1)))
        ink = ink.resize((int(side), int(side)), Image.Resampling.BICUBIC)
        mask.paste(ink, (int(centre - side / 2), int(centre - side / 2)))
        mask = mask.rotate(item.rotation, Image.Resampling.BILINEAR)
    else:
        draw, radius, angle = ImageDraw.Draw(mask), 0.46 * side, -math.radians(item.rotation)
        if item.symbol == "circle":
            draw.ellipse([centre - radius, centre - radius, centre + radius, centre + radius], fill=255)
        elif item.symbol in ("square", "diamond"):
            draw.polygon(_regular(centre, 1.15 * radius, 4, angle + math.pi / 4), fill=255)
        elif item.symbol == "triangle":
            draw.polygon(_regular(centre, 1.1 * radius, 3, angle), fill=255)
        elif item.symbol == "star":
            draw.polygon(_star(centre, 1.1 * radius, angle), fill=255)
        else:
            for turn in (0.0, math.pi / 2):
                dx, dy = radius * math.sin(angle + turn), radius * math.cos(angle + turn)
                draw.line([centre - dx, centre + dy, centre + dx, centre - dy], fill=255, width=int(0.3 * side))
    if item.hidden:
        draw = ImageDraw.Draw(mask)
        top = int(centre - side / 2 + (1 - item.hidden) * side * (0.5 + 0.5 * math.sin(item.rotation)))
        draw.rectangle([0, top, fine, top + int(item.hidden * side)], fill=0)
    return mask.resize((20, 20), Image.Resampling.BOX)


def render(scene: Scene, bank: DigitBank) -> Image.Image:
    """Draw a scene.

    Parameters
    ----------
    scene : Scene
    bank : DigitBank
        The bank that the scene was composed with.

    Returns
    -------
    PIL.Image.Image
        RGB, 64 x 64 pixels.
    """
    grey, down, right = scene.background
    ramp = np.linspace(-0.5, 0.5, SIZE)
    canvas = Image.fromarray(np.uint8(255 * np.clip(grey + down * ramp[:, None] + right * ramp[None, :], 0, 1)))
    draw = ImageDraw.Draw(canvas)
    for x0, y0, x1, y1, level in scene.clutter:
        draw.line([x0, y0, x1, y1], fill=int(255 * level))
    pixels = np.repeat(np.asarray(canvas, dtype=np.float64)[:, :, None] / 255, 3, axis=2)
    margin = 12
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)))
    for item in scene.items:
        cover = np.asarray(_item_mask(item, bank), dtype=np.float64)[:, :, None] / 255
        y, x = (round(value) - 10 + margin for value in item.centre)
        window = padded[y : y + 20, x : x + 20]
        window[:] = (1 - cover) * window + cover * _colour_value(item.hue)
    pixels = padded[margin:-margin, margin:-margin]
    return _degrade(pixels, scene.degradation, np.random.default_rng(scene.noise_seed))


def _degrade(pixels: np.ndarray, degradation: Degradation, rng: np.random.Generator) -> Image.Image:
    image = Image.fromarray(np.uint8(255 * np.clip(pixels, 0, 1)))
    if degradation.turn or degradation.shift != (0.0, 0.0):
        down, right = degradation.shift
        image = image.rotate(
            degradation.turn, Image.Resampling.BILINEAR, translate=(right, down), fillcolor=(20, 20, 20)
        )
    if degradation.blur:
        image = image.filter(ImageFilter.GaussianBlur(degradation.blur))
    values = np.asarray(image, dtype=np.float64) / 255 * degradation.light
    values = values + rng.normal(0, degradation.noise, size=values.shape)
    return Image.fromarray(np.uint8(np.round(255 * np.clip(values, 0, 1))))


def true_percepts(scene: Scene) -> tuple[Percept, ...]:
    """Return the items as the author of the scene sees them: nothing missed, the most likely reading."""
    return tuple(
        Percept(SYMBOLS[int(np.argmax(item.reading))], name_colour(item.hue), True, item.row, item.column, *item.centre)
        for item in scene.items
    )


def perceive(scene: Scene, rng: np.random.Generator) -> tuple[Percept, ...]:
    """Return how one person sees the scene.

    The person has boundaries between colour words of their own, reads symbols by the readings of the items, flattened
    by the severity of the degradation, and misses items that are hidden or that left the frame.
    """
    severity = scene.degradation.severity
    # A clean picture is read attentively; the worse it is, the flatter the readings become.
    power = 1.6 / (1 + 0.35 * severity)
    boundary = rng.normal(0, NAMING_SPREAD)
    percepts = []
    for item, truth in zip(scene.items, true_percepts(scene), strict=True):
        reading = _sharpen(np.asarray(item.reading), power)
        symbol = SYMBOLS[rng.choice(len(SYMBOLS), p=reading)]
        colour = name_colour(item.hue, boundary + rng.normal(0, 3.0 + 2.0 * severity))
        missed = rng.random() < _miss_probability(scene, item, severity)
        percepts.append(replace(truth, symbol=symbol, colour=colour, visible=not missed))
    return tuple(percepts)


def _miss_probability(scene: Scene, item: Item, severity: float) -> float:
    down, right = scene.degradation.shift
    y, x = item.centre[0] + down, item.centre[1] + right
    outside = max(0.0, -y, -x, y - SIZE, x - SIZE)
    unseen = max(0.0, severity - ILLEGIBLE)
    return min(
        0.98, 0.002 + 0.25 * item.hidden**2 + 0.01 * severity + unseen + (0.5 + 0.1 * outside if outside else 0.0)
    )
