"""Reads a scene back from pixels, so that an image can be checked against its caption."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.tiny_sd3.scenes import BACKGROUNDS, COLOURS, RING, Scene, Thing

_MIN_AREA = 150  # pixels; the smallest shape that is rendered covers about 700


def read_scene(image: NDArray[np.uint8]) -> Scene | None:
    """What an image shows.

    Args:
        image: (height, width, 3) 8-bit RGB.

    Returns:
        The scene in its canonical telling, or None where the image does not show one or two clean shapes.
    """
    pixels = image.astype(np.float32)
    paper, foreground = _separated(pixels)
    background = _nearest(paper, BACKGROUNDS)
    labels, count = ndimage.label(foreground)
    found: list[tuple[Thing, float, float]] = []
    for index in range(1, count + 1):
        mask = labels == index
        area = int(mask.sum())
        if area < _MIN_AREA:
            if area > 12:
                return None  # debris
            continue
        rows, columns = np.nonzero(mask)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        inside = ndimage.binary_erosion(mask, iterations=3)
        colour = _nearest(np.median(pixels[inside if inside.any() else mask], axis=0), COLOURS)
        if background is None or colour is None:
            return None
        whole = int(ndimage.binary_fill_holes(mask).sum())
        fill = whole / box  # pi/4 of its box for a circle, all of it for a square, half for a triangle
        shape = "square" if fill > 0.9 else "circle" if fill > 0.66 else "triangle"
        if whole - area > 0.05 * whole:  # 27 % of a ring's area is its hole
            shape = RING
        found.append((Thing(colour, shape), float(columns.mean()), float(rows.mean())))
    if background is None or len(found) not in (1, 2):
        return None
    if len(found) == 1:
        return Scene(found[0][0], background)
    (one, x1, y1), (two, x2, y2) = found
    if abs(x1 - x2) > abs(y1 - y2):
        relation, first_is_one = "left of", x1 < x2
    else:
        relation, first_is_one = "above", y1 < y2
    return Scene(one if first_is_one else two, background, relation, two if first_is_one else one)


def hole_share(image: NDArray[np.uint8]) -> float:
    """What share of the area inside the shapes' outlines shows the background: about 27 % in a ring, else nothing."""
    foreground = _separated(image.astype(np.float32))[1]
    whole = int(ndimage.binary_fill_holes(foreground).sum())
    return 1 - int(foreground.sum()) / whole if whole else 0.0


def _separated(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The background's colour, and which pixels show another."""
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, :3].reshape(-1, 3)])
    paper = np.median(border, axis=0)
    return paper, np.linalg.norm(pixels - paper, axis=-1) > 48


def _nearest(rgb: NDArray[np.float32], palette: dict[str, tuple[int, int, int]]) -> str | None:
    name = min(palette, key=lambda n: float(np.linalg.norm(rgb - np.array(palette[n]))))
    return name if float(np.linalg.norm(rgb - np.array(palette[name]))) < 70 else None


def shows(image: NDArray[np.uint8], scene: Scene) -> bool:
    """Whether an image shows a scene: its colours, shapes, relation and background."""
    return read_scene(image) == scene.canonical
