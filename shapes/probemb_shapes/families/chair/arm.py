"""Arms of chairs; each is an instance of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.joinery import chance, choose, panel, rounded_path
from probemb_shapes.families.primitives import Mesh, box, cushion, cylinder, merge, plate, rectangle, sweep
from probemb_shapes.families.tree import Node, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]


def _pair(left: Nodes) -> Nodes:
    """The arm and its mirror image, two instances."""
    right = tuple(leaf(node.name, node.mesh.mirrored(0)) for node in left if node.mesh is not None)
    return (Node("chair_arm", left), Node("chair_arm", right))


def no_arms(rng: np.random.Generator, plan: Plan) -> Nodes:
    return ()


def _post_at(plan: Plan, height: float) -> Array:
    """(3,) the back's post on the left at a height above the seat."""
    x = plan.width / 2 - plan.bars.size * 0.55
    return np.asarray(plan.lean_points(np.array([[x, min(height, 0.95 * plan.back), 0.0]]))[0])


def bar_arms(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A rest from the back's post to a support at the front, straight, bowed outwards or curving down."""
    size = plan.bars.size
    start = _post_at(plan, plan.arm)
    out = plan.width / 2 + rng.uniform(0.0, 0.06)
    front = plan.depth / 2 * rng.uniform(0.35, 1.0)
    end = np.array([out, start[1] + rng.uniform(-0.02, 0.02), front + rng.uniform(0.0, 0.05)])
    foot_height = plan.height - plan.thick - 0.02 if chance(rng, 0.75) else 0.0
    foot = np.array([plan.width / 2 + (0.0 if foot_height else size * 0.5), foot_height, front - rng.uniform(0, 0.05)])
    if chance(rng, 0.25):  # one bent piece
        path = rounded_path((start, end, foot), rng.uniform(0.05, 0.15))
        return _pair((leaf("arm_holistic_frame", plan.bars.along(path)),))
    flat = rectangle(size * rng.uniform(0.5, 0.9), size * rng.uniform(1.2, 2.5), 0.0)
    bow = rng.uniform(0.0, 0.05)
    t = np.linspace(0, 1, 8)[:, None]
    line = start + t * (end - start) + 4 * t * (1 - t) * np.array([bow, rng.uniform(-0.01, 0.02), 0.0])
    # The sweep starts along z: its first coordinate is along x, its second along y.
    rest = sweep(line, flat[:, ::-1]) if chance(rng, 0.6) else plan.bars.along(line)
    nodes = [leaf("arm_horizontal_bar", rest), leaf("arm_near_vertical_bar", plan.bars.bar(foot, line[-2]))]
    for u in np.linspace(0.3, 0.7, int(rng.integers(1, 4))) if chance(rng, 0.15) else ():
        at = line[0] + u * (line[-1] - line[0])
        below = np.array([plan.width / 2 - size, plan.height - 0.02, at[2]])
        nodes.append(leaf("arm_near_vertical_bar", plan.bars.bar(below, at, size * 0.6)))
    return _pair(tuple(nodes))


def loop_arms(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A bent tube from the back's post, or from under the seat, around to the seat."""
    x = plan.width / 2 + plan.bars.size * rng.uniform(0.3, 1.5)
    y = plan.height + plan.arm
    under = plan.height - plan.thick * 0.5
    z = plan.depth / 2
    front, back = z * rng.uniform(0.1, 0.8), -z * rng.uniform(0.2, 0.8)
    low_front, low_back = (x * 0.9, under, front - 0.02), (x * 0.9, under, back + 0.02)
    path = rounded_path((low_back, (x, y, back), (x, y, front), low_front), rng.uniform(0.04, 0.15))
    nodes = [leaf("arm_holistic_frame", plan.bars.along(path, plan.bars.size * 0.9))]
    if chance(rng, 0.4):
        pad = cushion((0.05, 0.03, front - back), exponent=5).moved((x, y + 0.012, (front + back) / 2))
        nodes.append(leaf("arm_horizontal_bar", pad))
    return _pair(tuple(nodes))


def t_arms(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A pad on one upright post."""
    x = plan.width / 2 + rng.uniform(0.01, 0.05)
    y, z = plan.height + plan.arm, rng.uniform(-0.1, 0.1) * plan.depth
    length, width = plan.depth * rng.uniform(0.4, 0.65), rng.uniform(0.05, 0.1)
    pad = cushion((width, 0.035, length), exponent=rng.uniform(4, 10), edge=3).rotated(1, rng.uniform(-8, 8))
    under = plan.height - plan.thick - 0.01
    path = rounded_path(((x * 0.3, under, z), (x, under, z), (x, y, z + rng.uniform(-0.05, 0.05))), 0.06)
    section = rectangle(rng.uniform(0.015, 0.03), rng.uniform(0.025, 0.06), 0.0)
    post = sweep(path, section[:, ::-1])
    return _pair((leaf("arm_horizontal_bar", pad.moved((x, y, z))), leaf("arm_near_vertical_bar", post)))


def panel_arms(rng: np.random.Generator, plan: Plan) -> Nodes:
    thick = rng.uniform(0.02, 0.06)
    top = plan.height + plan.arm
    low = plan.height - plan.thick - rng.uniform(0.0, 0.1)
    board = panel(plan.depth * 1.02, top - low, thick, (0, 0, 0), rounding=rng.uniform(0.0, 0.1))
    board = board.rotated(1, 90).moved((plan.width / 2 + thick / 2, (top + low) / 2, 0))
    nodes = [leaf("arm_sofa_style", board)]
    if chance(rng, 0.4):
        rest = box((thick * 2.2, 0.02, plan.depth * 1.05), (plan.width / 2 + thick / 2, top + 0.01, 0))
        nodes.append(leaf("arm_horizontal_bar", rest))
    return _pair(tuple(nodes))


def writing_arm(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A tablet on one side."""
    x, y = plan.width / 2 + 0.04, plan.height + plan.arm + 0.03
    tablet = plate(rectangle(rng.uniform(0.22, 0.3), plan.depth * rng.uniform(0.7, 1.0), 0.08), 0.018)
    tablet = tablet.rotated(0, rng.uniform(-8, 3)).moved((x - 0.06, y, plan.depth * 0.2))
    path = rounded_path(((x, plan.height - plan.thick, 0.0), (x, y, 0.0), (x, y, plan.depth * 0.3)), 0.06)
    nodes = (leaf("arm_writing_table", tablet), leaf("arm_near_vertical_bar", plan.bars.along(path)))
    return (Node("chair_arm", nodes),)


def sofa_arms(rng: np.random.Generator, plan: Plan, feet: float, width: float, behind: float) -> Nodes:
    """Boxes, bolsters or rolled and flared arms, as deep as the seat."""
    low, top = feet, plan.height + plan.arm
    depth = plan.depth + behind
    size = np.array([width, top - low, depth])
    center = np.array([plan.width / 2 + width / 2, (top + low) / 2, -behind / 2])
    kind = choose(rng, ((0.4, "box"), (0.35, "soft"), (0.25, "rolled")))
    if kind == "box":
        arm = box(size)
    elif kind == "soft":
        arm = cushion(size, exponent=rng.uniform(5, 16), edge=rng.uniform(4, 14))
    else:
        roll = width * rng.uniform(0.5, 0.75)
        arm = merge(
            (
                box(size * np.array([0.8, 0.94, 1.0]), (-0.1 * width, -0.03 * size[1], 0)),
                cylinder(
                    (0.05 * width, size[1] / 2 - roll, -depth / 2), (0.05 * width, size[1] / 2 - roll, depth / 2), roll
                ),
            )
        )
    slope = rng.uniform(0, 0.35) if chance(rng, 0.3) else 0.0
    flare = rng.uniform(0, 0.2) if chance(rng, 0.3) else 0.0
    x, y, z = arm.vertices.T
    up = y / size[1] + 0.5
    sheared = np.stack((x + flare * up * size[1] * 0.5, y - slope * up * (z / depth + 0.5) * size[1] * 0.5, z), axis=1)
    nodes = [leaf("arm_sofa_style", Mesh(sheared, arm.faces).moved(center))]
    if kind == "box" and not slope and chance(rng, 0.25):
        rest = box(
            (width * 1.15, 0.03, depth * 1.01), center + np.array([flare * size[1] * 0.5, size[1] / 2 + 0.015, 0])
        )
        nodes.append(leaf("arm_horizontal_bar", rest))
    return _pair(tuple(nodes))
