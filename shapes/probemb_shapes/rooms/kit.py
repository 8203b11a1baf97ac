"""Pieces for one room, drawn from the models of one side of the split and from the simple objects."""

from __future__ import annotations

import numpy as np

from probemb_shapes.rooms import simple
from probemb_shapes.rooms.layout import Piece
from probemb_shapes.rooms.models import Models
from probemb_shapes.rooms.surfels import Surfels

_SIMPLE_SHARE = 0.5
"""How often an object is simple where there are models, too."""


_UNTINTED = frozenset(("bathtub", "toilet", "sink", "refrigerator", "washing machine", "radiator"))


class Kit:
    """Draws pieces for one room.

    Args:
        models: of the source.
        split: the side of the split whose models are drawn.
        rng: draws.
    """

    def __init__(self, models: Models, split: str, rng: np.random.Generator) -> None:
        self.models, self.split, self.rng = models, split, rng

    def piece(self, category: str, *, key: str | None = None, scaled: bool = True) -> Piece | None:
        """A piece of a raw category: a model, stretched and coloured a little differently, or a simple object.

        Args:
            category: raw category.
            key: the model, for several of one kind; by default drawn.
            scaled: False to leave the size as it is.

        Returns:
            None if there is neither a model on this side of the split nor a simple object.
        """
        if key is None:
            key = self.key(category)
        if key is None:
            made = simple.SIMPLE.get(category)
            return None if made is None else Piece(category, "", made(self.rng))
        surfels = self.models[key].surfels
        if scaled:
            surfels = surfels.scaled(self.rng.uniform(0.94, 1.06) * self.rng.uniform(0.97, 1.03, 3))
        return Piece(category, key, self.tinted(category, surfels))

    def key(self, category: str) -> str | None:
        """A model of a raw category; None for a simple object."""
        keys = self.models.keys(self.split, category)
        if not keys or (category in simple.SIMPLE and self.rng.random() < _SIMPLE_SHARE):
            return None
        return keys[int(self.rng.integers(len(keys)))]

    def tinted(self, category: str, surfels: Surfels) -> Surfels:
        """In other light, and one time in three in another colour."""
        rgb = surfels.rgb * np.exp(self.rng.normal(0, 0.08, 3) + self.rng.normal(0, 0.12))
        if category not in _UNTINTED and self.rng.random() < 0.35:
            share = self.rng.uniform(0.2, 0.6)
            rgb = (1 - share) * rgb + share * simple.fabric(self.rng)
        return surfels._replace(rgb=rgb.clip(0.02, 0.98))
