"""A shape as a tree of named parts: points sampled on its surface, and its record as PartNet writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.families.primitives import Mesh, merge

Array = np.ndarray[Any, np.dtype[Any]]

MIN_POINTS = 20
"""Points that every leaf gets, however small it is."""


class Node(NamedTuple):
    """A part: a leaf has a mesh, every other part has children.

    Attributes:
        name: one component of the part path, such as `leg`.
        children: the parts it consists of.
        mesh: the surface of a leaf.
    """

    name: str
    children: tuple[Node, ...] = ()
    mesh: Mesh | None = None


def leaf(name: str, *meshes: Mesh) -> Node:
    """A leaf with the merged meshes."""
    return Node(name, mesh=meshes[0] if len(meshes) == 1 else merge(meshes))


def group(name: str, *children: Node) -> tuple[Node, ...]:
    """One inner node, or none where there are no children."""
    return (Node(name, children),) if children else ()


class Part(NamedTuple):
    """A node with its place in the tree.

    Attributes:
        path: the names from the root, joined by "/".
        leaves: ids of the leaves under it, 1-based in order of traversal; its own id for a leaf.
        node: the node.
    """

    path: str
    leaves: range
    node: Node


def parts(root: Node) -> list[Part]:
    """All nodes, each before its children.

    >>> leg = Node("leg", mesh=Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    >>> [(part.path, list(part.leaves)) for part in parts(Node("table", (leg, leg)))]
    [('table', [1, 2]), ('table/leg', [1]), ('table/leg', [2])]

    Raises:
        ValueError: a node has both a mesh and children, or neither.
    """
    return list(_parts(root, "", 1))


def _parts(node: Node, above: str, first: int) -> Iterator[Part]:
    path = above + node.name
    if (node.mesh is None) == (not node.children):
        found = "neither" if node.mesh is None else "both"
        raise ValueError(f"{path}: a node has either a mesh (a leaf) or children, this one has {found}")
    below: list[Part] = []
    end = first + (node.mesh is not None)
    for child in node.children:
        below.extend(_parts(child, f"{path}/", end))
        end = below[-1].leaves.stop
    yield Part(path, range(first, end), node)
    yield from below


def sample_points(root: Node, points: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Points on the surface, uniform by area, except that every leaf has at least `MIN_POINTS`.

    Args:
        root: the shape.
        points: P.
        rng: the source of randomness.

    Returns:
        Positions (P, 3) float32 and leaf ids (P,) int64, 1-based in order of traversal; ordered by leaf.

    Raises:
        ValueError: too few points for the leaves, or an invalid tree.
    """
    meshes = [part.node.mesh for part in parts(root) if part.node.mesh is not None]
    if points < MIN_POINTS * len(meshes):
        raise ValueError(f"{len(meshes)} leaves need at least {MIN_POINTS * len(meshes)} points, got {points}")
    triangles = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes])  # (F, 3, 3)
    area = np.concatenate([mesh.area for mesh in meshes])
    total = np.cumsum(area)
    stop = np.cumsum([len(mesh.faces) for mesh in meshes])
    start = np.concatenate(([0], stop[:-1]))
    high = total[stop - 1]
    low = np.concatenate(([0.0], high[:-1]))

    leaf = np.repeat(np.arange(len(meshes)), _counts(high - low, points, rng))
    at = low[leaf] + rng.random(points) * (high - low)[leaf]
    face = np.clip(np.searchsorted(total, at, side="right"), start[leaf], stop[leaf] - 1)
    u = rng.random((2, points))
    u = np.where(u.sum(0) > 1, 1 - u, u)[..., None]
    a, b, c = triangles[face].transpose(1, 0, 2)
    return (a + u[0] * (b - a) + u[1] * (c - a)).astype(np.float32), leaf + 1


def _counts(area: Array, points: int, rng: np.random.Generator) -> Array:
    """Points a leaf: multinomial by area among the leaves that get enough that way."""
    few = np.zeros(len(area), bool)
    while True:
        share = np.where(few, 0.0, area)
        count = np.full(len(area), MIN_POINTS)
        free = points - MIN_POINTS * int(few.sum())
        count[~few] = rng.multinomial(free, share[~few] / share.sum())
        if (count >= MIN_POINTS).all():
            return count
        few |= count < MIN_POINTS


def record(root: Node, anno_id: str) -> dict[str, Any]:
    """The shape's entry in PartNet's json: every node, of every level, is an instance.

    Returns:
        ``{"anno_id": …, "ins_seg": [{"part_name": path, "leaf_id_list": [ids]}, …]}``.

    Raises:
        ValueError: an invalid tree.
    """
    return {
        "anno_id": anno_id,
        "ins_seg": [{"part_name": part.path, "leaf_id_list": list(part.leaves)} for part in parts(root)],
    }
