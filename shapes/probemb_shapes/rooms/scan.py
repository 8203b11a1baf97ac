"""A furnished room scanned: several views with noise, fused into one cloud with objects and segments.

Views are fused as in a volume: measurements that fall into one cell of the grid become one vertex, the mean of them.
What no camera sees is missing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from probemb_shapes.rooms import simple
from probemb_shapes.rooms.camera import FIELD, HEIGHT, WIDTH, Camera, View, look_at, render
from probemb_shapes.rooms.layout import Item, Room
from probemb_shapes.rooms.surfels import Surfels, joined, rotation

Array = np.ndarray[Any, np.dtype[Any]]

MIN_VERTICES = 50
"""An object with fewer is left unannotated, as nobody annotates a sliver."""

RANGE = 4.0
"""Metres: beyond, fewer and fewer pixels have a depth."""

_SHELL = ("floor", "ceiling", "wall", "wall", "wall", "wall")
_BLOCK = 0.4  # metres, of the over-segmentation
_GRAZING = 0.12  # cosine below which a surface returns no depth


class Scan(NamedTuple):
    """A scanned room of V vertices and G objects.

    Attributes:
        pos: (V, 3) float32, metres, in a frame of its own, turned and shifted.
        rgb: (V, 3) uint8.
        instance: (V,) int64 row of ``categories``, −1 unannotated.
        segment: (V,) int64, each of one object.
        categories: raw category of each object: floor, walls, what stands in the room.
        models: key of the model of each object, "" where it has none.
        axis_alignment: (4, 4) to the frame of the room.
        kind: type of the room.
    """

    pos: Array
    rgb: Array
    instance: Array
    segment: Array
    categories: tuple[str, ...]
    models: tuple[str, ...]
    axis_alignment: Array
    kind: str


def scan_room(kind: str, room: Room, rng: np.random.Generator, *, cameras: int = 24, spacing: float = 0.03) -> Scan:
    """A scan of a room.

    Args:
        kind: type of the room.
        room: what to scan.
        rng: draws poses, noise and colours.
        cameras: number of views.
        spacing: of the grid into which they are fused, metres.
    """
    surfels, owner = _things(room.items)
    lights = np.column_stack((rng.uniform(0.2, 0.8, (2, 2)) * room.size[:2], np.full(2, room.size[2] - 0.1)))
    paint = _Paint(rng)
    walled_off = np.array([item.piece.category == "wall" for item in room.items], dtype=bool)
    surfels.rgb[walled_off[owner]] = paint.walls[0]
    fields: list[tuple[Array, ...]] = []
    for camera in camera_poses(room, rng, cameras):
        view = _returned(render(camera, surfels, room.size, room.openings), camera, rng)
        rgb = np.where((view.surface < 0)[:, None], paint.colors(view), 0.0)
        if len(surfels.pos):
            things = view.surface >= 0
            rgb[things] = surfels.rgb[view.surface[things]]
        row = np.where(view.surface < 0, -1 - view.surface, len(_SHELL) + _rows(owner, view.surface))
        fields.append((view.pos, _noise(view, camera, rng), view.normal, _exposed(rgb, view, lights, rng), row))
    pos, shift, normal, rgb, row = (np.concatenate(field) for field in zip(*fields, strict=True))
    return _fused(kind, room, rng, spacing, pos, shift, normal, rgb, row)


def camera_poses(room: Room, rng: np.random.Generator, count: int) -> list[Camera]:
    """Poses of somebody who walks around; each second looks at a thing, the others to where most floor is unseen."""
    width, depth, height = room.size
    border = min(0.3, width / 4)
    spot = rng.uniform((border, border), (width - border, depth - border), (300, 2))
    blocked = [item for item in room.items if item.z < 1.7]
    open_floor = np.array([_distance(item, spot) > 0.15 for item in blocked], dtype=bool).reshape(-1, len(spot)).all(0)
    spot = spot[open_floor] if open_floor.sum() >= 8 else spot  # else one stands among things
    things = [np.array((item.x, item.y, item.z + 0.6 * float(item.size[2]))) for item in room.items]
    things = [things[i] for i in rng.permutation(len(things))] or [np.array((width / 2, depth / 2, 0.3))]
    floor = np.stack(np.meshgrid(np.arange(0.1, width, 0.3), np.arange(0.1, depth, 0.3)), axis=2).reshape(-1, 2)
    unseen = np.ones(len(floor), dtype=bool)
    cameras = []
    for i in range(count):
        if i % 2:
            target = things[i // 2 % len(things)]
            far = np.linalg.norm(spot - target[:2], axis=1)
            some = np.argsort(abs(far - rng.uniform(1.4, 2.6)), kind="stable")[: max(4, len(spot) // 6)]
            eyes, aims = spot[rng.choice(some, 1)], target[None, :2]
            low = float(target[2]) + rng.normal(0, 0.15)
        else:
            eyes, aims = spot[rng.integers(len(spot), size=24)], floor[rng.integers(len(floor), size=24)]
            low = rng.uniform(-0.2, 0.5)
        seen = np.stack([_in_view(floor, eye, aim) for eye, aim in zip(eyes, aims, strict=True)])
        best = int((seen & unseen).sum(1).argmax())
        unseen &= ~seen[best]
        eye = np.array((*eyes[best], min(rng.uniform(1.35, 1.75), height - 0.3)))
        aim = np.array((*(aims[best] + rng.normal(0, 0.1, 2)), min(low, eye[2] - 0.1)))
        away = aim[:2] - eye[:2]
        if np.hypot(*away) < 0.4:  # not straight down
            aim[:2] = eye[:2] + 0.4 * away / max(float(np.hypot(*away)), 1e-6)
        cameras.append(look_at(eye, aim, float(rng.normal(0, 0.05))))
    return cameras


def _distance(item: Item, spot: Array) -> Array:
    """(S,) of spots from the footprint of an item, along its axes; 0 inside."""
    local = (spot - (item.x, item.y)) @ rotation(item.angle)[:2, :2]
    return np.asarray((abs(local) - item.size[:2] / 2).clip(0).max(1))


def _in_view(floor: Array, eye: Array, aim: Array) -> Array:
    """(F,) whether a camera over ``eye`` turned to ``aim`` has the spots of the floor in view, were nothing before."""
    to, forward = floor - eye, aim - eye
    distance = np.linalg.norm(to, axis=1)
    along = to @ forward / max(float(np.linalg.norm(forward)), 1e-6)
    return np.asarray((along > distance * np.cos(np.radians(FIELD / 2))) & (distance > 0.7) & (distance < RANGE))


def _things(items: list[Item]) -> tuple[Surfels, Array]:
    """All surfels in the room and the item of each."""
    parts = [item.surfels() for item in items]
    empty = Surfels(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)))
    return joined(empty, *parts), np.repeat(np.arange(len(items)), [len(part.pos) for part in parts])


def _rows(owner: Array, surface: Array) -> Array:
    return np.asarray(owner[surface.clip(0)]) if len(owner) else np.zeros(len(surface), np.int64)


def _returned(view: View, camera: Camera, rng: np.random.Generator) -> View:
    """The pixels with a measurement: not at a grazing angle, less and less far away, not at every edge."""
    direction = view.pos - camera.pos
    cosine = -(direction * view.normal).sum(1) / np.linalg.norm(direction, axis=1)
    depth = np.full(WIDTH * HEIGHT, np.nan)
    depth[view.pixel] = view.depth
    image: Array = depth.reshape(HEIGHT, WIDTH)
    jump = np.fmax.reduce(
        [abs(np.diff(image, axis=axis, append=np.take(image, [-1], axis=axis))) for axis in (0, 1)], axis=0
    )
    edge = np.nan_to_num(jump.ravel()[view.pixel]) > 0.15
    chance = np.exp(-np.maximum(view.depth - RANGE, 0)) * np.where(edge, 0.5, 0.985)
    keep = (cosine > _GRAZING) & (rng.random(len(cosine)) < chance)
    return View(*(field[keep] for field in view))


def _noise(view: View, camera: Camera, rng: np.random.Generator) -> Array:
    """(P, 3) by how much each measurement is off.

    Along the ray by a part that is smooth over the image and one that is not, both with a standard deviation of
    1.2 + 1.9 (z − 0.4)² millimetres at z metres (Nguyen et al., "Modeling Kinect sensor noise", 3DIMPVT 2012), and by
    an error of the pose.
    """
    coarse = rng.normal(0, 1.0, (HEIGHT // 12 + 1, WIDTH // 12 + 1))
    row, column = np.divmod(view.pixel, WIDTH)
    smooth = ndimage.map_coordinates(coarse, (row / 12, column / 12), order=1)
    deviation = 0.0012 + 0.0019 * (view.depth - 0.4) ** 2
    ray = view.pos - camera.pos
    along = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    turn = rng.normal(0, 0.0015, 3)
    return np.asarray(
        along * (deviation * (smooth + rng.normal(0, 1.0, len(row))))[:, None]
        + np.cross(turn, ray)
        + rng.normal(0, 0.003, 3)
    )


def _exposed(rgb: Array, view: View, lights: Array, rng: np.random.Generator) -> Array:
    """Colours in the light of the room, seen with the exposure and white balance of one frame."""
    light = np.zeros(len(rgb))
    for lamp in lights:
        to = lamp - view.pos
        distance = np.linalg.norm(to, axis=1)
        light += ((to * view.normal).sum(1) / distance).clip(0) / (1 + 0.12 * distance**2)
    gain = np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.025, 3))
    return np.asarray(((rgb * (0.55 + 0.45 * light)[:, None]) * gain + rng.normal(0, 0.015, rgb.shape)).clip(0, 1))


class _Paint:
    """Colours of floor, ceiling and walls."""

    def __init__(self, rng: np.random.Generator) -> None:
        wall = np.array((0.85, 0.84, 0.8)) * rng.uniform(0.8, 1.08) + rng.normal(0, 0.02, 3)
        if rng.random() < 0.3:
            wall = 0.5 * wall + 0.5 * simple.fabric(rng)
        self.walls = np.stack([wall * rng.uniform(0.94, 1.04) for _ in range(4)])
        if rng.random() < 0.2:  # one in another colour
            self.walls[int(rng.integers(4))] = simple.fabric(rng)
        self.floor = simple.wood(rng) if rng.random() < 0.5 else 0.35 * simple.fabric(rng) + 0.3 * rng.random() + 0.1
        self.pattern = ("planks", "tiles", "carpet")[int(rng.integers(3))]
        self.tile = float(rng.uniform(0.25, 0.5))
        self.strip = wall * 0.7 if rng.random() < 0.5 else wall
        self.height = float(rng.uniform(0.05, 0.12))

    def colors(self, view: View) -> Array:
        """(P, 3) as on the planes; anything for other pixels."""
        plane, pos = -1 - view.surface, view.pos
        rgb = self.walls[(plane - 2).clip(0, 3)].copy()
        rgb[pos[:, 2] < self.height] = self.strip
        rgb[plane == 1] = 0.92
        floor = plane == 0
        x, y = pos[floor, 0], pos[floor, 1]
        if self.pattern == "planks":
            board = np.floor(x / 0.14)
            shade = 1 + 0.14 * np.sin(board * 12.9898 + np.floor(y / 1.1 + board * 0.37) * 78.233)
        elif self.pattern == "tiles":
            shade = np.where((np.mod(x, self.tile) < 0.02) | (np.mod(y, self.tile) < 0.02), 0.7, 1.0)
        else:
            shade = 1 + 0.06 * np.sin(x * 9.1) * np.sin(y * 7.7)
        rgb[floor] = self.floor * shade[:, None]
        return np.asarray(rgb.clip(0.02, 1))


def _fused(
    kind: str,
    room: Room,
    rng: np.random.Generator,
    spacing: float,
    pos: Array,
    shift: Array,
    normal: Array,
    rgb: Array,
    row: Array,
) -> Scan:
    """One vertex for each cell and object."""
    # By the surface and not by the measurement: noise bends a surface, it does not thicken it.
    cell = np.floor(pos / spacing).astype(np.int64) + 64
    span = cell.max(0) + 1
    count = len(_SHELL) + len(room.items)
    key = ((cell[:, 0] * span[1] + cell[:, 1]) * span[2] + cell[:, 2]) * count + row
    keys, index, hits = np.unique(key, return_inverse=True, return_counts=True)

    def mean(values: Array) -> Array:
        return np.stack([np.bincount(index, v, len(keys)) for v in values.T], axis=1) / hits[:, None]

    at, owner = mean(pos), keys % count
    facing = abs(mean(normal)).argmax(1)
    block = np.floor(at / _BLOCK).astype(np.int64) + 8
    wide = block.max(0) + 1
    group = ((block[:, 0] * wide[1] + block[:, 1]) * wide[2] + block[:, 2]) * 3 + facing
    segment = np.unique(group * count + owner, return_inverse=True)[1]

    enough = np.bincount(owner, minlength=count) >= MIN_VERTICES
    rank = np.where(enough, np.cumsum(enough) - 1, -1)
    categories = (*_SHELL, *(item.piece.category for item in room.items))
    models = (*("" for _ in _SHELL), *(item.piece.model for item in room.items))

    turn, move = rotation(rng.uniform(-np.pi, np.pi)), rng.uniform(0, 1, 3) * (2, 2, 0.1)
    alignment = np.eye(4)
    alignment[:3, :3], alignment[:3, 3] = turn.T, -turn.T @ move
    return Scan(
        pos=((at + mean(shift)) @ turn.T + move).astype(np.float32),
        rgb=np.rint(mean(rgb) * 255).astype(np.uint8),
        instance=rank[owner],
        segment=segment.astype(np.int64),
        categories=tuple(c for c, some in zip(categories, enough, strict=True) if some),
        models=tuple(m for m, some in zip(models, enough, strict=True) if some),
        axis_alignment=alignment,
        kind=kind,
    )
