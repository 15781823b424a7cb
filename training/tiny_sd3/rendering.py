"""Renders scenes as images: the training data of the embedded pipeline, made on the device it trains on."""

import torch

from training.tiny_sd3.scenes import BACKGROUNDS, COLOURS, RING, SHAPES, SIZE, Scene

_NAMES = [*COLOURS, *BACKGROUNDS]
_RGB = [*COLOURS.values(), *BACKGROUNDS.values()]
_SHAPES = (*SHAPES, RING)


def encode_scenes(scenes: list[Scene]) -> torch.Tensor:
    """Scenes as integers, shape (n, 6): colour, shape, background, relation, second colour, second shape.

    A scene of one shape has -1 in its last three columns.
    """
    axis = ["left of", "right of", "above", "below"]
    rows = []
    for scene in scenes:
        row = [_NAMES.index(scene.first.colour), _SHAPES.index(scene.first.shape), _NAMES.index(scene.background)]
        if scene.second is None or scene.relation is None:
            row += [-1, -1, -1]
        else:
            row += [
                axis.index(scene.relation),
                _NAMES.index(scene.second.colour),
                _SHAPES.index(scene.second.shape),
            ]
        rows.append(row)
    return torch.tensor(rows)


def render(codes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Render encoded scenes with random sizes and places, anti-aliased.

    Args:
        codes: (n, 6) integers from `encode_scenes`, on the device to render on.
        generator: source of the random sizes and places, on the same device.

    Returns:
        (n, 3, 128, 128) float32 images in [-1, 1].
    """
    device, n = codes.device, codes.shape[0]

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=generator, device=device) * (high - low) + low

    palette = torch.tensor(_RGB, device=device, dtype=torch.float32) / 127.5 - 1
    single = codes[:, 3] < 0
    relation = codes[:, 3]
    gap, cross_1, cross_2 = uniform(28, 34), uniform(-10, 10), uniform(-10, 10)
    middle = SIZE / 2 + uniform(-3, 3)
    horizontal = (relation == 0) | (relation == 1)
    sign = torch.where((relation == 0) | (relation == 2), -1.0, 1.0)
    along_1, along_2 = middle + sign * gap, middle - sign * gap
    x1 = torch.where(horizontal, along_1, SIZE / 2 + cross_1)
    y1 = torch.where(horizontal, SIZE / 2 + cross_1, along_1)
    x2 = torch.where(horizontal, along_2, SIZE / 2 + cross_2)
    y2 = torch.where(horizontal, SIZE / 2 + cross_2, along_2)
    x1, y1 = torch.where(single, middle + cross_1, x1), torch.where(single, middle + cross_2, y1)
    radius_1 = torch.where(single, uniform(26, 38), uniform(19, 26))
    radius_2 = uniform(19, 26)

    image = palette[codes[:, 2]][:, :, None, None].expand(n, 3, SIZE, SIZE)
    image = _paint(image, palette[codes[:, 0]], codes[:, 1], x1, y1, radius_1)
    second = _paint(image, palette[codes[:, 4].clamp(min=0)], codes[:, 5].clamp(min=0), x2, y2, radius_2)
    return torch.where(single[:, None, None, None], image, second)


def _paint(
    image: torch.Tensor, rgb: torch.Tensor, shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Blend one shape into each image by its signed distance, one pixel of smoothing at the edge."""
    axis = torch.arange(SIZE, device=image.device, dtype=torch.float32) + 0.5
    dx = axis[None, None, :] - x[:, None, None]
    dy = axis[None, :, None] - y[:, None, None]
    r = radius[:, None, None]
    circle = (dx.square() + dy.square()).sqrt() - r
    square = torch.maximum(dx.abs(), dy.abs()) - 0.88 * r
    below = dy - 0.31 * r  # a triangle's centroid lies below the middle of its height
    triangle = torch.maximum(0.8660254 * dx.abs() - 0.5 * below, below) - 0.62 * r
    ring = (circle + 0.24 * r).abs() - 0.24 * r
    which = shape[:, None, None]
    distance = torch.where(which == 0, circle, torch.where(which == 1, square, torch.where(which == 2, triangle, ring)))
    coverage = (0.5 - distance).clamp(0, 1)[:, None]
    return image * (1 - coverage) + rgb[:, :, None, None] * coverage
