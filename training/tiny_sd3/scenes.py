"""The world that the embedded pipeline knows: coloured shapes, where they stand, and the captions that say so."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

SIZE = 128
"""Width and height of an image in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 222, 60),
    "green": (34, 150, 70),
    "blue": (36, 84, 214),
    "purple": (140, 50, 170),
}
"""Colours of the shapes, as 8-bit RGB."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (150, 150, 150),
    "black": (20, 20, 20),
}
"""Colours of the backgrounds, as 8-bit RGB."""

SHAPES = ("circle", "square", "triangle")

RING = "ring"
"""A shape that the pipeline's own training never shows; its adapter draws it."""

RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""Each relation with its inverse."""


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One shape, or two in a relation, on a background."""

    first: Thing
    background: str
    relation: str | None = None
    second: Thing | None = None

    @property
    def caption(self) -> str:
        """The sentence that describes the scene, as the pipeline is prompted with it."""
        if self.second is None:
            return f"{self.first} on {self.background}"
        return f"{self.first} {self.relation} {self.second} on {self.background}"

    @property
    def canonical(self) -> "Scene":
        """The same image described the one way round that uses "left of" or "above"."""
        if self.second is None or self.relation in ("left of", "above"):
            return self
        assert self.relation is not None
        return Scene(self.second, self.background, RELATIONS[self.relation], self.first)

    @property
    def held_out(self) -> bool:
        """Whether training never shows this image under either of its captions: 1 pair of things in 10."""
        if self.second is None:
            return False
        c = self.canonical
        digest = hashlib.sha256(f"{c.first}|{c.relation}|{c.second}".encode()).digest()
        return digest[0] % 10 == 0


def every_scene() -> Iterator[Scene]:
    """All scenes in a fixed order: the single shapes, then the ordered pairs of different things."""
    things = [Thing(c, s) for c in COLOURS for s in SHAPES]
    for thing, background in itertools.product(things, BACKGROUNDS):
        yield Scene(thing, background)
    for first, relation, second, background in itertools.product(things, RELATIONS, things, BACKGROUNDS):
        if first != second:
            yield Scene(first, background, relation, second)


def ring_scenes() -> tuple[list[Scene], list[Scene]]:
    """All scenes of one ring, and all of a ring and another thing, in a fixed order."""
    rings = [Thing(colour, RING) for colour in COLOURS]
    things = [*(Thing(colour, shape) for colour in COLOURS for shape in SHAPES), *rings]
    pairs = [
        Scene(first, background, relation, second)
        for first, relation, second, background in itertools.product(things, RELATIONS, things, BACKGROUNDS)
        if first != second and RING in (first.shape, second.shape)
    ]
    return [Scene(ring, background) for ring in rings for background in BACKGROUNDS], pairs


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """``count`` scenes that training never showed, in an order fixed by ``seed``."""
    held_out = [scene for scene in every_scene() if scene.held_out]
    held_out.sort(key=lambda scene: hashlib.sha256(f"{seed}|{scene.caption}".encode()).digest())
    return held_out[:count]
