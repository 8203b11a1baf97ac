"""A chair from its parts, under PartNet's names."""

from __future__ import annotations

from probemb_shapes.families.tree import Node, group

Nodes = tuple[Node, ...]


def whole_chair(
    seat: Nodes, base: Nodes, back: Nodes = (), arms: Nodes = (), head: Nodes = (), foot: Nodes = ()
) -> Node:
    """The parts under PartNet's names; each arm is an instance of its own."""
    return Node(
        "chair",
        (
            *group("chair_head", *head),
            *group("chair_back", *back),
            *arms,
            *group("chair_seat", *seat),
            *group("chair_base", *base),
            *group("footrest", *foot),
        ),
    )
