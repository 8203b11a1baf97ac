"""What stands between the objects that were found and the true ones: average precision once errors of one kind are
repaired by the truth.

The gain of a repair is what its kind of error costs, as in Bolya et al., "TIDE", ECCV 2020, whose kinds are those of
boxes; those of instances in points are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor


class Found(NamedTuple):
    """P instances in a scene of V points; they may overlap."""

    masks: Tensor  # (P, V) bool
    classes: Tensor  # (P,)
    scores: Tensor  # (P,)


class Truth(NamedTuple):
    """G objects in a scene of V points."""

    instance: Tensor  # (V,) row of the point's object, or negative
    classes: Tensor  # (G,)

    @classmethod
    def of(cls, target: Tensor, class_ids: Sequence[int]) -> Truth:
        """The objects of some classes in a target (V,) of `evaluation_target`, label · 1000 + instance."""
        ids = target.unique()
        ids = ids[torch.isin(ids // 1000, torch.tensor(class_ids))]
        row = torch.searchsorted(ids, target).clamp_max(max(len(ids) - 1, 0))
        return cls(torch.where(torch.isin(target, ids), row, -1), ids // 1000)

    @property
    def masks(self) -> Tensor:
        """(G, V) bool."""
        return self.instance == torch.arange(len(self.classes))[:, None]


def shared(found: Found, truth: Truth) -> Tensor:
    """(P, G) points that an instance and an object have in common."""
    return found.masks.float() @ truth.masks.float().T


def owner(found: Found, truth: Truth) -> Tensor:
    """(P,) the object that holds more than half of an instance's points, or −1."""
    if not len(truth.classes):
        return torch.full((len(found.masks),), -1)
    most, row = shared(found, truth).max(1)
    return torch.where(2 * most > found.masks.sum(1), row, -1)


def overlap(found: Found, truth: Truth) -> Tensor:
    """(P, G) intersection over union."""
    common = shared(found, truth)
    return common / (found.masks.sum(1)[:, None] + truth.masks.sum(1) - common).clamp_min(1)


def scores_repaired(found: Found, truth: Truth) -> Found:
    """Scores that are the IoU with the object that an instance fits best."""
    return found._replace(scores=overlap(found, truth).amax(1)) if len(truth.classes) else found


def classes_repaired(found: Found, truth: Truth) -> Found:
    """Instances that touch an object have the class of the one that they fit best."""
    if not len(truth.classes):
        return found
    best, row = overlap(found, truth).max(1)
    return found._replace(classes=torch.where(best > 0, truth.classes[row], found.classes))


def splits_repaired(found: Found, truth: Truth) -> Found:
    """Instances that lie mostly in the same object are one, with class and score of the best of them."""
    own = owner(found, truth)
    masks, gone = found.masks.clone(), torch.zeros(len(own), dtype=torch.bool)
    for object_ in own[own >= 0].unique():
        parts = (own == object_).nonzero().squeeze(1)
        best = parts[found.scores[parts].argmax()]
        masks[best] = found.masks[parts].any(0)
        gone[parts[parts != best]] = True
    return Found(masks[~gone], found.classes[~gone], found.scores[~gone])


def merges_repaired(found: Found, truth: Truth) -> Found:
    """Instances that hold most of several objects are divided among these, each point to its own; what lies in none of
    them stays with the largest."""
    common = shared(found, truth)
    holds = 2 * common > truth.masks.sum(1)
    parts = []
    for row, own in enumerate(holds):
        objects = own.nonzero().squeeze(1)
        mask = found.masks[row]
        if len(objects) < 2:
            parts.append((mask, row))
            continue
        objects = objects[common[row, objects].argsort(descending=True, stable=True)]
        others = [mask & (truth.instance == object_) for object_ in objects[1:]]
        parts += [(part, row) for part in (mask & ~torch.stack(others).any(0), *others)]
    rows = torch.tensor([row for _, row in parts], dtype=torch.int64)
    masks = torch.stack([mask for mask, _ in parts]) if parts else found.masks
    return Found(masks, found.classes[rows], found.scores[rows])


def outlines_repaired(found: Found, truth: Truth) -> Found:
    """Points of no object leave, and points of objects that are in no instance join the one that lies mostly in their
    object and holds the most of it."""
    common, own = shared(found, truth), owner(found, truth)
    masks = found.masks & (truth.instance >= 0)
    free = ~found.masks.any(0) & (truth.instance >= 0)
    for object_ in own[own >= 0].unique():
        parts = (own == object_).nonzero().squeeze(1)
        masks[parts[common[parts, object_].argmax()]] |= free & (truth.instance == object_)
    return found._replace(masks=masks)


REPAIRS: Mapping[str, Callable[[Found, Truth], Found]] = MappingProxyType(
    {
        "scores": scores_repaired,
        "classes": classes_repaired,
        "splits": splits_repaired,
        "merges": merges_repaired,
        "outlines": outlines_repaired,
    }
)
"""By the kind of error."""
