"""Meshes against closed forms; trees: sampling by area, records, levels."""

from __future__ import annotations

from itertools import pairwise
from math import gamma, pi
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from probemb_shapes.classes import levels
from probemb_shapes.families import joinery
from probemb_shapes.families.primitives import (
    Mesh,
    bend,
    box,
    circle,
    cushion,
    cylinder,
    lathe,
    loft,
    merge,
    plate,
    rectangle,
    split,
    sweep,
)
from probemb_shapes.families.tree import MIN_POINTS, Node, group, leaf, parts, record, sample_points

Array = np.ndarray[Any, np.dtype[Any]]
ARC = np.linspace(0, pi / 2, 65)
QUARTER = np.stack((2 * np.sin(ARC), 2 * np.cos(ARC), np.zeros(65)), axis=1)  # a quarter circle of radius 2


def volume(mesh: Mesh) -> float:
    """Enclosed volume, positive where the faces are counter-clockwise from outside."""
    a, b, c = mesh.vertices[mesh.faces.T]
    return float((a * np.cross(b, c)).sum() / 6)


def is_closed(mesh: Mesh) -> bool:
    """Every edge is there once in each direction, after merging equal vertices."""
    _, same = np.unique(mesh.vertices.round(9), axis=0, return_inverse=True)
    faces = same.reshape(-1)[mesh.faces]
    edges = [tuple(edge) for i, j in ((0, 1), (1, 2), (2, 0)) for edge in faces[:, [i, j]].tolist()]
    return len(set(edges)) == len(edges) and all((b, a) in set(edges) for a, b in edges)


def polygon(sides: int, radius: float = 1.0) -> float:
    """Area of a regular polygon."""
    return sides * radius**2 * np.sin(2 * pi / sides) / 2


SOLIDS: dict[str, tuple[Mesh, float, float]] = {
    # name: mesh, volume, relative tolerance
    "box": (box((1, 2, 3), (4, 5, 6)), 6, 1e-12),
    "mirrored": (box((1, 2, 3), (4, 5, 6)).mirrored(1), 6, 1e-12),
    "rotated": (box((1, 2, 3), (4, 5, 6)).rotated(0, 40, (1, 1, 1)).moved((1, 2, 3)), 6, 1e-12),
    "scaled": (box((1, 1, 1)).scaled((1, 2, 3)), 6, 1e-12),
    "cylinder": (cylinder((1, 2, 3), (1, 2, 7), 0.5), 4 * polygon(16, 0.5), 1e-12),
    "cylinder slanted": (cylinder((0, 0, 0), (3, -4, 0), 0.5, segments=9), 5 * polygon(9, 0.5), 1e-12),
    "frustum": (cylinder((0, 0, 0), (0, 3, 0), 1, 0.5), polygon(16) * (1 + 0.5 + 0.25), 1e-12),
    "sweep clockwise": (sweep([(0, 0, 0), (0, 2, 0)], rectangle(1, 3)[::-1]), 6, 1e-12),
    "sweep quarter": (sweep(QUARTER, rectangle(0.2, 0.3)), 0.06 * pi, 1e-3),
    "sweep scaled": (sweep([(0, 0, 0), (0, 0, 3)], rectangle(1, 1), scale=(1, 0.5)), 1.75, 1e-12),
    "lathe": (lathe([(0, 0), (1, 0), (1, 2), (0, 2)]), 2 * polygon(24), 1e-12),
    "lathe cone": (lathe([(0, 0), (1, 0), (0, 3)]), polygon(24), 1e-12),
    "torus": (lathe([(1, -0.1), (1.1, 0), (1, 0.1), (0.9, 0), (1, -0.1)], segments=200), 2 * pi * 0.02, 1e-3),
    "plate": (plate(rectangle(2, 3), 0.5), 3, 1e-12),
    "plate round": (plate(circle(1, 12), 0.5), polygon(12) / 2, 1e-12),
    "plate with hole": (plate(rectangle(2, 3, 0.1), 0.5, holes=[rectangle(1, 1, 0.1)]), 2.5, 1e-12),
    "ellipsoid": (cushion((2, 4, 6), exponent=2), 8 * pi, 0.03),
    "cushion": (cushion((2, 4, 6)), 48 * gamma(1.25) ** 3 / gamma(1.75), 0.03),
    "bent": (bend(box((2, 0.2, 1)), 0, 1, 90), 0.4, 0.01),
    "bent the other way": (bend(box((2, 0.2, 1)), 0, 1, -170), 0.4, 0.01),
    "split": (split(box((1, 2, 3)).rotated(2, 30), 0, 0.1), 6, 1e-12),
    "loft": (loft(np.stack([np.insert(circle(1.0, 5)[::-1], 1, y, axis=1) for y in (0.0, 1.0)])), polygon(5), 1e-12),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_solid_is_closed_outward_and_has_its_volume(name: str) -> None:
    mesh, expected, tolerance = SOLIDS[name]
    assert is_closed(mesh)
    assert volume(mesh) == pytest.approx(expected, rel=tolerance)


def test_is_closed_tells_an_open_surface() -> None:
    assert not is_closed(Mesh(box((1, 1, 1)).vertices, box((1, 1, 1)).faces[1:]))
    assert not is_closed(lathe([(1, 0), (1, 1)]))  # a shade


@pytest.mark.parametrize(
    ("mesh", "area"),
    [
        (box((1, 2, 3)), 22),
        (split(box((1, 2, 3)), 2, 0.2), 22),
        (box((1, 2, 3)).scaled(2), 88),
        (lathe([(1, 0), (1, 2)], segments=400), 4 * pi),
        (plate(rectangle(2, 2), 1, holes=[rectangle(1, 1)]), 2 * 3 + 8 + 4),
    ],
)
def test_area(mesh: Mesh, area: float) -> None:
    assert mesh.area.sum() == pytest.approx(area, rel=1e-4)


def test_methods_leave_their_mesh() -> None:
    mesh = box((1, 2, 3))
    before = mesh.vertices.copy()
    mesh.moved((1, 1, 1)), mesh.scaled(2), mesh.rotated(1, 90), mesh.mirrored(0), bend(mesh, 1, 0, 20)
    np.testing.assert_array_equal(mesh.vertices, before)


@pytest.mark.parametrize(("axis", "start", "end"), [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_rotation_turns_the_next_axis_to_the_one_after(axis: int, start: int, end: int) -> None:
    unit = np.eye(3)
    turned = Mesh(unit[[start]], np.zeros((0, 3), np.int64)).rotated(axis, 90)
    np.testing.assert_allclose(turned.vertices, unit[[end]], atol=1e-12)


def test_merge_keeps_the_faces_apart() -> None:
    both = merge([box((1, 1, 1)), box((1, 1, 1), (5, 0, 0))])
    assert volume(both) == pytest.approx(2)
    assert both.vertices[both.faces[12:]].min() >= -0.5
    assert both.vertices[both.faces[12:], 0].min() == 4.5


def test_sweep_lays_the_section_as_documented() -> None:
    upwards = sweep([(0, 0, 0), (0, 1, 0)], rectangle(0.2, 0.6))
    np.testing.assert_allclose(np.ptp(upwards.vertices, axis=0), (0.2, 1, 0.6))
    across = sweep([(0, 0, 0), (1, 0, 0)], rectangle(0.2, 0.6))
    np.testing.assert_allclose(np.ptp(across.vertices, axis=0), (1, 0.6, 0.2))


def test_bend_keeps_the_middle_and_the_length() -> None:
    angle = 60
    arc = bend(box((2, 0.002, 0.002)), 0, 2, angle)
    radius = 2 / np.deg2rad(angle)
    center = arc.vertices - (0, 0, radius)
    np.testing.assert_allclose(np.hypot(center[:, 0], center[:, 2]), radius, atol=0.0011)
    assert np.ptp(arc.vertices[:, 0]) == pytest.approx(2 * radius * np.sin(np.deg2rad(angle) / 2), rel=1e-3)
    assert arc.vertices[np.abs(arc.vertices[:, 0]).argmax(), 2] > 0.1  # the ends come forward
    straight = box((1, 1, 1))
    assert bend(straight, 0, 1, 0) is straight


def test_split_reaches_its_limit() -> None:
    mesh = split(box((1, 2, 3)).rotated(1, 20), 0, 0.3)
    x = mesh.vertices[mesh.faces][..., 0]
    assert np.ptp(x, axis=1).max() <= 0.3 * (1 + 1e-6)


def test_rectangle_has_its_bounds() -> None:
    for rounding in (0.0, 0.3, 1.0):
        outline = rectangle(2, 4, rounding)
        np.testing.assert_allclose(np.ptp(outline, axis=0), (2, 4), atol=1e-12)
        assert len(outline) == (16 if rounding else 4)


def test_cushion_bounds() -> None:
    mesh = cushion((2, 4, 6), exponent=8, edge=2)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (2, 4, 6))


ERRORS: list[tuple[Any, str]] = [
    (lambda: box((1, 1, 1)).scaled((1, -1, 1)), "factors must be positive"),
    (lambda: merge([]), "at least one mesh"),
    (lambda: sweep([(0, 0, 0)], circle(1)), "2 or more points"),
    (lambda: sweep([(0, 0, 0), (0, 0, 0)], circle(1)), "2 or more points"),
    (lambda: lathe([(-1, 0), (1, 1)]), "must not be negative"),
    (lambda: plate(circle(2), 1, holes=[circle(1, 5)]), "one hole with as many points"),
    (lambda: plate(circle(2), 1, holes=[circle(1), circle(1)]), "one hole with as many points"),
    (lambda: rectangle(1, 2, 0.6), "over half the shorter side"),
    (lambda: bend(box((1, 1, 1)), 1, 1, 10), "two axes"),
    (lambda: bend(box((1, 1, 1)), 0, 1, 180), "bend less"),
    (lambda: split(box((1, 1, 1)), 0, 0.0), "limit must be positive"),
    (lambda: parts(Node("empty")), "neither"),
    (lambda: parts(Node("a", (Node("b", (leaf("c", box((1, 1, 1))),), box((1, 1, 1))),))), "a/b: .* both"),
    (
        lambda: sample_points(TREE, 4 * MIN_POINTS, np.random.default_rng(0)),
        "5 leaves need at least 100 points, got 80",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


TREE = Node(
    "chair",
    (
        Node("arm", (leaf("bar", box((1, 1, 1))), leaf("post", box((1, 2, 3), (9, 0, 0))))),
        Node("arm", (leaf("bar", box((1, 1, 1), (20, 0, 0))), leaf("post", box((0.01, 0.01, 0.01), (30, 0, 0))))),
        leaf("seat", box((4, 4, 4), (40, 0, 0))),
    ),
)


def test_record_names_every_node_with_its_leaves() -> None:
    entry = record(TREE, "x-1")
    assert entry["anno_id"] == "x-1"
    assert [(item["part_name"], item["leaf_id_list"]) for item in entry["ins_seg"]] == [
        ("chair", [1, 2, 3, 4, 5]),
        ("chair/arm", [1, 2]),
        ("chair/arm/bar", [1]),
        ("chair/arm/post", [2]),
        ("chair/arm", [3, 4]),
        ("chair/arm/bar", [3]),
        ("chair/arm/post", [4]),
        ("chair/seat", [5]),
    ]


def test_points_are_uniform_by_area_and_on_their_leaf() -> None:
    pos, ids = sample_points(TREE, 50_000, np.random.default_rng(3))
    assert (pos.dtype, ids.dtype) == (np.float32, np.int64)
    count = np.bincount(ids, minlength=6)[1:]
    area = np.array([6.0, 22.0, 6.0, 0.0006, 96.0])
    assert count.sum() == 50_000
    assert count[3] == MIN_POINTS
    expected = (50_000 - MIN_POINTS) * area / 130
    large = [0, 1, 2, 4]
    assert (np.abs(count - expected)[large] < 5 * np.sqrt(expected[large])).all()
    for i, part in enumerate(part for part in parts(TREE) if part.node.mesh is not None):
        assert part.node.mesh is not None
        mine = pos[ids == i + 1]
        low, high = part.node.mesh.vertices.min(0), part.node.mesh.vertices.max(0)
        assert ((mine >= low - 1e-5) & (mine <= high + 1e-5)).all()
        away = np.minimum(np.abs(mine - low), np.abs(mine - high)).min(1)
        assert away.max() < 1e-5  # on a face
    # Within a leaf: each face of the cube of edge 4 has a sixth, each quarter of a face a quarter of it.
    seat = (pos[ids == 5] - (40, 0, 0)) / 2
    top = seat[seat[:, 1] > 1 - 1e-6]
    assert len(top) == pytest.approx(len(seat) / 6, abs=5 * np.sqrt(len(seat) / 6))
    quarters = np.bincount((top[:, 0] > 0) * 2 + (top[:, 2] > 0), minlength=4)
    assert (np.abs(quarters - len(top) / 4) < 5 * np.sqrt(len(top) / 4)).all()


def test_points_of_exactly_enough() -> None:
    _, ids = sample_points(TREE, 5 * MIN_POINTS, np.random.default_rng(0))
    assert np.bincount(ids)[1:].tolist() == [MIN_POINTS] * 5


def test_sampling_is_seeded() -> None:
    first, second = (sample_points(TREE, 1000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    other = sample_points(TREE, 1000, np.random.default_rng(6))
    assert not np.array_equal(first[0], other[0])


def test_leaf_and_group() -> None:
    node = leaf("pair", box((1, 1, 1)), box((1, 1, 1), (3, 0, 0)))
    assert node.mesh is not None
    assert len(node.mesh.faces) == 24
    assert group("none") == ()
    assert group("one", node) == (Node("one", (node,)),)


def test_levels_refine() -> None:
    found = levels({"a": {"b": {"c": ("d", "e"), "f": ()}, "g": ()}})
    assert found == {1: ("a/b", "a/g"), 2: ("a/b/c", "a/b/f", "a/g"), 3: ("a/b/c/d", "a/b/c/e", "a/b/f", "a/g")}


def test_choose_follows_the_weights() -> None:
    rng = np.random.default_rng(0)
    drawn = [joinery.choose(rng, ((1, "a"), (0, "never"), (3, "b"))) for _ in range(4000)]
    assert "never" not in drawn
    assert drawn.count("b") == pytest.approx(3000, abs=5 * np.sqrt(750))


def test_legs_run_from_their_top_to_the_floor() -> None:
    for seed in range(40):
        legs = joinery.draw_legs(np.random.default_rng(seed), 0.05)
        top = np.array([1.0, 0.7, 2.0])
        line = legs.curve(top, (0.6, 0.8), 0.1)
        np.testing.assert_allclose(line[0], top, atol=1e-9)
        assert line[-1, 1] == pytest.approx(0.1)
        assert all(a > b for a, b in pairwise(line[:, 1]))
        mesh = legs.leg(top, (0.6, 0.8), 0.1)
        assert is_closed(mesh)
        assert volume(mesh) > 0
        np.testing.assert_allclose(legs.at(top, (0.6, 0.8), 0.7), top, atol=1e-9)


def test_rounded_path_keeps_its_ends_and_cuts_its_corners() -> None:
    path = joinery.rounded_path(((0, 0, 0), (1, 0, 0), (1, 1, 0)), 0.2)
    np.testing.assert_array_equal(path[[0, -1]], [(0, 0, 0), (1, 1, 0)])
    assert np.linalg.norm(path - (1, 0, 0), axis=1).min() == pytest.approx(0.2 * np.sqrt(2) / 4)


def test_caster_stands_on_the_floor_under_its_top() -> None:
    mesh = joinery.caster(np.random.default_rng(1), (1, 0.1, 2), 0.03)
    assert mesh.vertices[:, 1].min() == pytest.approx(0, abs=1e-3)
    assert mesh.vertices[:, 1].max() == pytest.approx(0.1)


@pytest.mark.parametrize(("outline", "reach"), [(rectangle(2, 1), 1.0), (circle(3, 400) * (1, 2), 0.7071)])
def test_corner_reach(outline: Array, reach: float) -> None:
    assert joinery.corner_reach(outline) == pytest.approx(reach, abs=0.01)


def test_bars_reach_between_their_ends() -> None:
    bars = joinery.Bars(rectangle(1, 1), 0.1)
    np.testing.assert_allclose(np.ptp(bars.bar((0, 0, 0), (0, 2, 0)).vertices, axis=0), (0.1, 2, 0.1))
    bow = bars.arch((-1, 0, 0), (1, 0, 0), (0, 0.5, 0), 0.02).vertices
    assert bow[:, 1].max() == pytest.approx(0.51, abs=0.005)


@pytest.mark.parametrize("rounding", [0.0, 0.1])
def test_panel_stands_in_the_x_y_plane(rounding: float) -> None:
    mesh = joinery.panel(2, 3, 0.1, (1, 1, 1), rounding=rounding)
    np.testing.assert_allclose(mesh.vertices.min(0), (0, -0.5, 0.95), atol=1e-12)
    np.testing.assert_allclose(mesh.vertices.max(0), (2, 2.5, 1.05), atol=1e-12)
