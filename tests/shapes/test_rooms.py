"""Open rooms: repeatable, furnished as rooms are, scanned so that hidden surfaces are missing, and read as ScanNet."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import PROJECT
from scipy.spatial import cKDTree

from probemb_adapters.scannet import INSTANCE_CLASSES, ScanNetScenes, evaluation_target
from probemb_adapters.scannet.files import NYU40, read_label_map, scene_paths
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.rooms import generate, scan, scene_id, sheet, split_of_scene, write_rooms
from probemb_shapes.rooms.__main__ import main
from probemb_shapes.rooms.camera import FIELD, HEIGHT, WIDTH, View, look_at, render
from probemb_shapes.rooms.furnish import ROOMS, furnished
from probemb_shapes.rooms.layout import TUCKED, Item, Opening, Piece, Room, overlap, place, shared_cells
from probemb_shapes.rooms.models import GROUPS, LABELS, Models, split_of
from probemb_shapes.rooms.simple import SIMPLE, SIMPLE_CLASSES
from probemb_shapes.rooms.surfels import Surfels, box, cloth, ellipsoid, from_points, panel
from probemb_shapes.rooms.write import RoomsReport

SOURCE = PROJECT / "data" / "scan_objects"
SMALL: dict[str, Any] = {"cameras": 12, "spacing": 0.05}
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(SOURCE)


@pytest.fixture(scope="module")
def rooms(models: Models) -> list[tuple[str, Room]]:
    """Furnished rooms, of both sides in turn."""
    return [furnished(models, ("train", "val")[i % 2], np.random.default_rng([98, i])) for i in range(24)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RoomsReport]:
    root = tmp_path_factory.mktemp("rooms") / "deep" / "root"
    return root, write_rooms(SOURCE, root, scenes=5, seed=3, **SMALL)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- the source and its split


def raw() -> dict[str, Array]:
    with np.load(SOURCE / "objects.npz") as file:
        return {name: file[name] for name in file.files}


def keys_of(data: dict[str, Array]) -> list[str]:
    short = {"BlendSwap-CC-0": "cc0", "BlendSwap-CC-BY": "ccby", "KatorLegaz": "katorlegaz"}
    return [f"{short[a]}-{b}" for a, b in zip(data["library"].tolist(), data["name"].tolist(), strict=True)]


def test_split_keeps_groups_together_and_serves_every_class(models: Models) -> None:
    keys = set(keys_of(raw()))
    members = [member for group in GROUPS.values() for member in group]
    assert set(members) <= keys
    assert len(set(members)) == len(members)
    for group in GROUPS.values():
        assert len({split_of(member) for member in group}) == 1
    counts = models.counts()
    assert tuple(counts) == INSTANCE_CLASSES or set(counts) == set(INSTANCE_CLASSES)
    for name, count in counts.items():
        assert min(count.values()) > 0 or name in SIMPLE_CLASSES, name
        assert sum(count.values()) >= 4 or name in SIMPLE_CLASSES, name
    assert 0.15 < sum(c["val"] for c in counts.values()) / 130 < 0.4
    for key in keys:
        # The raw category of a model is one of its class.
        assert NYU40[LABELS[models.category(key)]] == models.label(key)
    assert set(models.keys("train", "bed")) | set(models.keys("val", "bed")) == {
        key for key in keys if models.label(key) == "bed"
    }


def test_no_near_duplicates_across_splits() -> None:
    """The distance that GROUPS is made with, for all pairs of different splits; near ones only in full."""
    data = raw()
    keys, rng = keys_of(data), np.random.default_rng(0)
    clouds = []
    for start, end in zip(data["ptr"][:-1], data["ptr"][1:], strict=True):
        x = data["pos"][start:end].astype(np.float64)
        x = x - (x.min(0) + x.max(0)) / 2
        clouds.append(rng.permutation(x / np.linalg.norm(x, axis=1).max()))
    trees = [cKDTree(cloud) for cloud in clouds]
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # a quarter about z
    turns = [np.linalg.matrix_power(turn, k) for k in range(4)]
    turned = np.stack([np.stack([cloud[:12] @ t for t in turns]) for cloud in clouds])
    val = np.array([split_of(key) == "val" for key in keys])
    near = {}
    for i in np.flatnonzero(val):
        others = np.flatnonzero(~val)
        coarse = trees[i].query(turned[others])[0].mean(-1)
        for row, k in np.argwhere(coarse < 0.06):
            j = int(others[row])
            there = trees[i].query(clouds[j][:512] @ turns[k])[0].mean()
            back = trees[j].query(clouds[i][:512] @ turns[k].T)[0].mean()
            pair = (keys[i], keys[j])
            near[pair] = min(near.get(pair, 1.0), float(there + back) / 2)
    assert len(near) > 50  # the search does find pairs
    assert min(near.values()) > 0.03, sorted(near.items(), key=lambda x: x[1])[:5]


def test_missing_and_damaged_source(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"objects\.npz is missing: source must be the folder data/scan_objects"
    ):
        write_rooms(tmp_path, tmp_path / "root")
    path = tmp_path / "objects.npz"
    path.write_bytes((SOURCE / "objects.npz").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"objects\.npz is no readable npz file"):
        Models(tmp_path)
    data = raw()
    np.savez(path, **{name: value for name, value in data.items() if name not in ("rgb", "label")})
    with pytest.raises(ValueError, match=r"objects\.npz has no array rgb, label"):
        Models(tmp_path)
    for change in (
        {"pos": data["pos"][:-1]},
        {"ptr": data["ptr"][:-1]},
        {"rgb": data["rgb"][:, :2]},
        {"label": np.array(["spaceship", *data["label"][1:]])},
    ):
        np.savez(path, **(data | change))
        with pytest.raises(ValueError, match=r"objects\.npz: expected 130 objects"):
            Models(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["objects.npz"]


# --- surfaces


def test_surfaces() -> None:
    """Normals are of unit length and across the surface; discs cover it."""
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(3000, 3))
    ball = ball / np.linalg.norm(ball, axis=1, keepdims=True) * 0.5
    for surfels, normal in (
        (from_points(ball.astype(np.float32), np.full((3000, 3), 255, np.uint8)), ball / 0.5),
        (panel((1, 2, 3), (0.3, 0, 0), (0, 0.2, 0), (1, 0, 0)), np.array((0, 0, 1.0))),
        (ellipsoid((1, 1, 1), (0, 0, -0.5), (1, 1, 1)), None),
    ):
        np.testing.assert_allclose(np.linalg.norm(surfels.normal, axis=1), 1)
        expected = surfels.pos / np.linalg.norm(surfels.pos, axis=1, keepdims=True) if normal is None else normal
        assert np.mean(abs((surfels.normal * expected).sum(1)) > 0.98) > 0.98
    covered, _ = cKDTree(ball).query(ball[::7] @ np.linalg.qr(rng.normal(size=(3, 3)))[0])
    assert (covered < from_points(ball, np.zeros((3000, 3))).radius.mean()).mean() > 0.95

    cube = box((0.6, 0.3, 0.9), (0, 0, 0), (0, 0, 1))
    inside = (abs(cube.pos[:, :2]) < (0.299, 0.149)).all(1) & (cube.pos[:, 2] > 1e-3) & (cube.pos[:, 2] < 0.899)
    assert not inside.any()
    np.testing.assert_allclose(cube.size(), (0.6, 0.3, 0.9), atol=0.04)
    assert len(box((0.6, 0.3, 0.9), (0, 0, 0), (0, 0, 1), without="t").pos) < len(cube.pos)
    hung = cloth(0.8, 1.5, (0, 0, 0.1), (1, 1, 1), folds=5, depth=0.1)
    np.testing.assert_allclose(np.linalg.norm(hung.normal, axis=1), 1)
    np.testing.assert_allclose(hung.size(), (0.8, 0.1, 1.5), atol=0.04)
    turned = cube.moved(np.pi / 2, (1, 0, 0)).scaled((1, 2, 1))
    np.testing.assert_allclose(np.linalg.norm(turned.normal, axis=1), 1)
    np.testing.assert_allclose(turned.size(), (0.3, 1.2, 0.9), atol=0.08)


@pytest.mark.parametrize("category", list(SIMPLE))
def test_simple_objects_differ_and_have_plausible_sizes(category: str) -> None:
    sizes = [SIMPLE[category](np.random.default_rng(i)).size() for i in range(4)]
    assert len({tuple(size.round(4)) for size in sizes}) > 1
    for size in sizes:
        assert (size > 0.01).all()
        assert (size < 2.2).all()


# --- layout


def cube(x: float, y: float, z: float = 0.0, size: tuple[float, float, float] = (1, 1, 1), angle: float = 0.0) -> Item:
    return place(Piece("box", "", box(size, (0, 0, 0), (1, 1, 1))), x, y, z, angle)._replace(size=np.array(size, float))


def test_overlap_of_boxes() -> None:
    a = cube(0, 0)
    assert overlap(a, cube(0.9, 0))
    assert not overlap(a, cube(0.995, 0))  # touches
    assert not overlap(a, cube(0, 0, z=1.0))
    assert overlap(a, cube(0, 0, z=0.5))
    # The corner of a turned one reaches in, though the axis-aligned bounds of both tell nothing of the other corner.
    assert overlap(a, cube(1.1, 0, angle=np.pi / 4))
    assert not overlap(a, cube(0.95, 0.95, angle=np.pi / 4))
    assert overlap(a, cube(1.2, 0), margin=0.3)
    assert not overlap(a, cube(1.4, 0), margin=0.3)
    assert shared_cells(a, a) == 1
    assert shared_cells(a, cube(5, 0)) == 0


def facing(item: Item) -> Array:
    return np.array([np.sin(item.angle), -np.cos(item.angle)])


def test_rooms_are_furnished_as_rooms_are(rooms: list[tuple[str, Room]]) -> None:
    touching = stacked = tucked = seats = 0
    mounted = {"door", "window", "curtain", "picture", "sink", "wall"}
    for _, room in rooms:
        things = [item for item in room.items if item.piece.category not in mounted]
        assert any(o.low == 0 for o in room.openings)
        for item in things:
            assert (item.corners() > -0.02).all()
            assert (item.corners() < np.array(room.size[:2]) + 0.02).all()
            assert item.top < room.size[2] + 0.02
        for i, a in enumerate(things):
            below = [b for b in room.items if b is not a and overlap(a, b, 0.03)]
            on = [b for b in below if a.z > 0.3 * b.top > 0.05 and not b.z > a.z]
            hung = a.piece.category in ("upper cabinet", "shower curtain")
            assert a.z == 0 or hung or on, a.piece.category
            stacked += any(abs(a.z - b.top) < 0.02 for b in on)
            for b in things[i + 1 :]:
                deep = overlap(a, b, -0.03)
                if deep and a not in on and not (b.z > 0.05 or a.z > 0.05):
                    seat, table = (a, b) if "chair" in a.piece.category or a.piece.category == "bench" else (b, a)
                    assert "chair" in seat.piece.category or seat.piece.category == "bench"
                    assert shared_cells(seat, table) <= TUCKED
                    tucked += 1
                touching += not overlap(a, b) and overlap(a, b, 0.02) and max(a.z, b.z) < 0.01
        for seat in things:
            if "chair" in seat.piece.category:
                tables = [t for t in things if t.piece.category in ("table", "desk") and overlap(seat, t, 0.12)]
                seats += bool(tables)
                if len(tables) == 1 and overlap(seat, tables[0], -0.05):
                    t = tables[0]
                    local = np.array((t.x - seat.x, t.y - seat.y))
                    assert local @ facing(seat) > 0
    assert min(touching, stacked, tucked) > 10
    assert seats > 20
    assert len({kind for kind, _ in rooms}) >= 5
    assert {kind for kind, _ in rooms} <= set(ROOMS)


def test_beds_and_sofas_stand_along_walls(rooms: list[tuple[str, Room]]) -> None:
    found = 0
    for _, room in rooms:
        for item in room.items:
            if item.piece.category in ("bed", "sofa", "bookshelf", "wardrobe", "bathtub"):
                # The back is at the wall to which the front is turned away.
                back = np.array((item.x, item.y)) - facing(item) * item.size[1] / 2
                walls = (back[0], back[1], room.size[0] - back[0], room.size[1] - back[1])
                assert min(walls) < 0.06
                found += 1
    assert found > 15


def test_room_places() -> None:
    rng = np.random.default_rng(0)
    room = Room((3.0, 4.0, 2.5), rng)
    shelf = Piece("bookshelf", "", box((1.0, 0.4, 1.5), (0, 0, 0), (1, 1, 1)))
    for wall, (x, y) in enumerate(((1.5, 3.8), (0.2, 1.5), (1.5, 0.2), (2.8, 1.5))):
        item = room.along_wall(shelf, wall=wall, along=1.5, out=0.0)
        assert item is not None
        np.testing.assert_allclose((item.x, item.y), (x, y), atol=0.05)
        inwards = np.array((1.5, 2.0)) - (item.x, item.y)
        assert facing(item) @ inwards > 0
    assert room.along_wall(shelf, wall=0, along=1.5) is None  # taken
    too_long = Piece("box", "", box((5.0, 0.4, 1.0), (0, 0, 0), (1, 1, 1)))
    assert room.along_wall(too_long) is None
    assert room.anywhere(too_long) is None
    support = room.items[0]
    assert room.on_top(too_long, support) is None
    assert room.on_top(Piece("box", "", box((0.3, 0.3, 0.2), (0, 0, 0), (1, 1, 1))), support) is not None
    assert room.items[-1].z == pytest.approx(1.5, abs=0.01)
    bare = Piece("box", "", box((0.3, 0.3, 2.0), (0, 0, 0), (1, 1, 1)))
    assert room.on_top(bare, support) is None  # the ceiling is in the way


# --- the scan


def test_render_shows_the_nearest_surface_and_holes() -> None:
    size = (4.0, 4.0, 2.5)
    eye = look_at(np.array((2.0, 0.5, 1.2)), np.array((2.0, 4.0, 1.2)))
    near = panel((1.5, 2.0, 0.7), (1.0, 0, 0), (0, 0, 1.0), (1, 0, 0))
    far = panel((1.0, 3.0, 0.2), (2.0, 0, 0), (0, 0, 2.0), (0, 1, 0))
    both = Surfels(*(np.concatenate(field) for field in zip(near, far, strict=True)))
    view = render(eye, both, size)
    assert len(view.pixel) == WIDTH * HEIGHT  # all around is wall
    middle = view.surface[view.pixel == HEIGHT // 2 * WIDTH + WIDTH // 2]
    assert 0 <= middle < len(near.pos)
    np.testing.assert_allclose(view.depth[view.surface >= len(near.pos)], 2.5, atol=1e-5)
    np.testing.assert_allclose(view.pos[view.surface < 0].min(), 0, atol=1e-9)
    # What lies behind the near panel is hidden: its shadow on the far one
    seen = view.pos[view.surface >= len(near.pos)]
    shadow = abs(seen[:, 0] - 2.0) < 0.5 * 2.5 / 1.5 - 0.05
    assert not (shadow & (abs(seen[:, 2] - 1.2) < 0.5 * 2.5 / 1.5 - 0.05)).any()
    assert ((view.pos - eye.pos) * view.normal).sum(1).max() <= 0
    focal = WIDTH / 2 / np.tan(np.radians(FIELD / 2))
    width = (view.surface[view.pixel // WIDTH == 60] < len(near.pos)) & (view.surface[view.pixel // WIDTH == 60] >= 0)
    assert abs(width.sum() - focal * 1.0 / 1.5) < 4

    nothing = Surfels(*(field[:0] for field in near))
    open_wall = render(eye, nothing, size, [Opening(0, 1.5, 2.5, 0.5, 2.0)])
    full = render(eye, nothing, size)
    gone = np.setdiff1d(full.pixel, open_wall.pixel)
    at = full.pos[np.isin(full.pixel, gone)]
    np.testing.assert_allclose(at.min(0), (1.5, 4, 0.5), atol=0.05)
    np.testing.assert_allclose(at.max(0), (2.5, 4, 2.0), atol=0.05)


def in_room(result: scan.Scan, category: str) -> Array:
    pos = result.pos[result.instance == result.categories.index(category)]
    return np.asarray(pos @ result.axis_alignment[:3, :3].T + result.axis_alignment[:3, 3])


def test_hidden_surfaces_are_missing() -> None:
    """The underside of a table, and the back and the inside of a cabinet at the wall."""
    rng = np.random.default_rng(1)
    room = Room((4.0, 4.0, 2.5), rng)
    table = Piece("table", "", box((1.4, 0.8, 0.12), (0, 0, 0), (0.6, 0.4, 0.2)))
    assert room.add(place(table, 2.0, 1.8, z=0.7)) is not None
    double = Surfels(
        *(
            np.concatenate(f)
            for f in zip(*(box((1 - d, 0.6 - d, 1 - d), (0, 0, d / 2), (1, 1, 1)) for d in (0, 0.3)), strict=True)
        )
    )
    assert room.along_wall(Piece("cabinet", "", double), wall=0, along=2.0, out=0.0) is not None
    result = scan.scan_room("test", room, rng, spacing=0.04)
    pos = in_room(result, "table")
    middle = (abs(pos[:, 0] - 2.0) < 0.55) & (abs(pos[:, 1] - 1.8) < 0.25)
    assert middle.sum() > 200
    assert pos[middle, 2].min() > 0.76  # the upper side only
    pos = in_room(result, "cabinet")
    assert (pos[:, 1] < 3.5).sum() > 200  # its front
    inner = (abs(pos[:, 0] - 2.0) < 0.42) & (pos[:, 2] < 0.92) & (pos[:, 2] > 0.08)
    assert pos[inner, 1].max() < 3.47  # neither its back nor what is within
    # Nor the wall behind it and the floor below
    wall = result.pos[np.isin(result.instance, [i for i, c in enumerate(result.categories) if c == "wall"])]
    wall = wall @ result.axis_alignment[:3, :3].T + result.axis_alignment[:3, 3]
    assert not ((wall[:, 1] > 3.9) & (abs(wall[:, 0] - 2) < 0.42) & (wall[:, 2] < 0.7)).any()
    floor = in_room(result, "floor")
    assert not ((floor[:, 1] > 3.48) & (abs(floor[:, 0] - 2) < 0.42)).any()
    assert ((floor[:, 1] < 3.0) & (floor[:, 1] > 2.6)).sum() > 100


def test_noise_grows_with_depth() -> None:
    eye = look_at(np.zeros(3), np.array((0.0, 1.0, 0.0)))
    rng = np.random.default_rng(0)
    pixel = np.arange(WIDTH * HEIGHT)
    deviation = []
    for z in (1.0, 2.0, 4.0):
        pos = np.stack((np.zeros(len(pixel)), np.full(len(pixel), z), np.zeros(len(pixel))), axis=1)
        view = View(pixel, pos, -pos / z, np.full(len(pixel), z), pixel)
        deviation.append(float(np.std(scan._noise(view, eye, rng)[:, 1])))
    assert deviation[0] < deviation[1] < deviation[2]
    expected = [0.0012 + 0.0019 * (z - 0.4) ** 2 for z in (1.0, 2.0, 4.0)]
    assert np.all(np.array(deviation) > 0.9 * np.array(expected))
    assert np.all(np.array(deviation) < 1.8 * np.array(expected))


def test_empty_and_crowded_rooms_can_be_scanned() -> None:
    rng = np.random.default_rng(0)
    empty = scan.scan_room("empty", Room((3.0, 3.0, 2.5), rng), rng, cameras=3, spacing=0.08)
    assert set(empty.categories) <= {"floor", "wall", "ceiling"}
    crowded = Room((2.0, 2.0, 2.5), rng)
    assert crowded.add(cube(1, 1, size=(1.9, 1.9, 0.8))) is not None
    result = scan.scan_room("crowded", crowded, rng, cameras=4, spacing=0.08)
    assert "box" in result.categories


def test_small_objects_are_unannotated() -> None:
    rng = np.random.default_rng(0)
    room = Room((3.0, 3.0, 2.5), rng)
    assert room.add(cube(1.5, 1.5, size=(0.06, 0.06, 0.06))) is not None
    result = scan.scan_room("one", room, rng, cameras=8, spacing=0.05)
    assert "box" not in result.categories
    assert (result.instance == -1).any()
    assert np.bincount(result.instance[result.instance >= 0]).min() >= scan.MIN_VERTICES


def test_colors_vary_with_exposure() -> None:
    """The same wall from one pose: each frame has an exposure of its own."""
    view = View(*(np.zeros((50, n) if n > 1 else 50) for n in (1, 3, 3, 1, 1)))
    frames = [
        scan._exposed(np.full((50, 3), 0.5), view, np.array([[1.0, 1, 2]]), np.random.default_rng(i)).mean()
        for i in range(8)
    ]
    assert np.std(frames) > 0.01


# --- what is written


def test_scannet_reads_it(written: tuple[Path, RoomsReport]) -> None:
    root, report = written
    assert report.scenes == {"train": 4, "val": 1}
    counted: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    metric = ScanNetAP()
    sizes = []
    for split in ("train", "val"):
        scenes = ScanNetScenes(root, split)
        assert scenes.scene_ids == tuple(scene_id(i) for i in range(5) if split_of_scene(i) == split)
        for row in range(len(scenes)):
            item, read = scenes[row], scenes.read(row)
            assert read.label is not None
            assert read.object is not None
            sizes.append(len(read.pos))
            assert {1, 2} <= set(read.label.tolist())
            floor = read.pos[read.label == 2]
            assert abs(np.median(floor[:, 2])) < 0.02
            np.testing.assert_allclose(np.quantile(floor[:, :2], 0.001, axis=0), 0, atol=0.2)
            # Aligned: each wall's vertices lie in a plane x = c or y = c.
            for wall in np.unique(read.object[read.label == 1])[:2]:
                assert np.ptp(np.quantile(read.pos[read.object == wall, :2], (0.1, 0.9), axis=0), axis=0).min() < 0.1
            spacing = cKDTree(read.pos).query(read.pos[::50], k=2)[0][:, 1]
            assert 0.005 < np.median(spacing) < 0.06
            target = evaluation_target(item)
            for i in range(int(item.instance.max()) + 1):
                label = int(item.label[item.instance == i][0])
                counted[split][NYU40[label]] += 1
            ids = [i for i in target.unique().tolist() if i // 1000 in ScanNetAP().class_ids and i % 1000]
            masks = np.stack([target.numpy() == i for i in ids])
            metric.update(masks, [i // 1000 for i in ids], np.linspace(1, 0.5, len(ids)), target)
            # Every segment lies in one object, and objects have several.
            segment = np.array(json.loads(scene_paths(root, read.scene_id).segments.read_text())["segIndices"])
            pairs = np.unique(np.stack((segment, read.object), 1), axis=0)
            assert len(pairs) == len(np.unique(segment))
            assert len(pairs) > 3 * (read.object.max() + 1)
    result = metric.compute()
    assert (result["ap"], result["ap50"], result["ap25"]) == (1, 1, 1)
    assert report.instances == {
        name: {split: counted[split][name] for split in ("train", "val")} for name in report.instances
    }
    assert report.vertices == (min(sizes), float(np.median(sizes)), max(sizes))
    assert read_label_map(root) == LABELS


def test_no_validation_object_in_training(written: tuple[Path, RoomsReport]) -> None:
    used = json.loads((written[0] / "models.json").read_text())
    seen: dict[str, set[str]] = {"train": set(), "val": set()}
    for index in range(5):
        seen[split_of_scene(index)] |= set(used[scene_id(index)]) - {""}
    for split, keys in seen.items():
        assert keys
        assert {split_of(key) for key in keys} == {split}


def test_both_sides_have_only_their_models(rooms: list[tuple[str, Room]]) -> None:
    for i, (_, room) in enumerate(rooms):
        for item in room.items:
            assert not item.piece.model or split_of(item.piece.model) == ("train", "val")[i % 2]
            assert item.piece.model or item.piece.category in (*SIMPLE, "door", "window", "curtain", "counter", "wall")


def test_report_is_a_table(written: tuple[Path, RoomsReport]) -> None:
    report = written[1]
    lines = str(report).splitlines()
    assert lines[0] == "scenes: train 4, val 1"
    least, median, most = report.vertices
    assert lines[2] == f"vertices a scene: {least} to {most}, median {median:g}"
    bed = next(line for line in lines if line.startswith("bed "))
    assert bed.split()[1:] == ["5", "2", *(str(report.instances["bed"][split]) for split in ("train", "val"))]
    assert next(line for line in lines if line.startswith("picture")).split()[1:4] == ["0", "0", "yes"]
    assert len(lines) == 5 + 18


def test_equal_to_the_byte_and_independent_of_count(
    written: tuple[Path, RoomsReport], tmp_path: Path, models: Models
) -> None:
    root = written[0]
    write_rooms(SOURCE, tmp_path / "again", scenes=6, seed=3, **SMALL)
    again, first = contents(tmp_path / "again"), contents(root)
    scans = {name for name in first if name.startswith("scans/")}
    assert len(scans) == 5 * 5
    assert {name: again[name] for name in scans} == {name: first[name] for name in scans}
    assert again["scannetv2_train.txt"].startswith(first["scannetv2_train.txt"])
    other = generate(models, 4, 0, **SMALL)
    assert not np.array_equal(other.pos, generate(models, 3, 0, **SMALL).pos)


class Stop:
    """A progress bar that stops before a scene."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.scenes: list[int] = []

    def __call__(self, scenes: Iterable[int]) -> Iterator[int]:
        for index in scenes:
            if index == self.at:
                raise KeyboardInterrupt
            self.scenes.append(index)
            yield index


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes that are made at once, for what does not look into them."""
    empty = scan.scan_room(
        "empty", Room((2.0, 2.0, 2.4), np.random.default_rng(0)), np.random.default_rng(0), cameras=2
    )
    monkeypatch.setattr("probemb_shapes.rooms.write.generate", lambda *_, **__: empty)


def test_complete_cache_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch)
    root = tmp_path / "root"
    report, second = write_rooms(SOURCE, root, scenes=5), Stop(9)
    before = contents(root)
    assert write_rooms(SOURCE, root, scenes=5, progress=second) == report
    assert (second.scenes, contents(root)) == ([], before)
    for damage in (
        lambda: (root / "scannetv2_val.txt").write_text("cut off"),
        lambda: (root / "manifest.json").write_text("{"),
        lambda: (root / "manifest.json").write_text("[]"),
        lambda: (root / "manifest.json").write_text('{"version": 0}'),
        lambda: shutil.rmtree(root / "scans" / "scene0002_00"),
    ):
        damage()
        again = Stop(9)
        assert write_rooms(SOURCE, root, scenes=5, progress=again) == report
        assert (again.scenes, contents(root)) == ([0, 1, 2, 3, 4], before)
    assert write_rooms(SOURCE, root, scenes=7, seed=1).scenes == {"train": 6, "val": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch)
    root = tmp_path / "root"
    with pytest.raises(KeyboardInterrupt):
        write_rooms(SOURCE, root, scenes=5, progress=Stop(3))
    assert list(tmp_path.iterdir()) == []
    write_rooms(SOURCE, root, scenes=5)
    before = contents(root)
    with pytest.raises(KeyboardInterrupt):
        write_rooms(SOURCE, root, scenes=6, progress=Stop(3))
    assert contents(root) == before
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root" / "scans").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    for name in ("root", "file"):
        with pytest.raises(FileExistsError, match=rf"{name} holds other things than this cache"):
            write_rooms(SOURCE, tmp_path / name, scenes=5)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "root", "scans"]


def test_rooms_of_one_side_from_all_models_of_a_file(tmp_path: Path) -> None:
    """For evaluation on objects of another library."""
    report = write_rooms(SOURCE / "objects.npz", tmp_path / "root", scenes=5, seed=3, only="val", **SMALL)
    assert report.scenes == {"train": 0, "val": 1}
    assert report.models["chair"] == {"train": 0, "val": 32}
    assert ScanNetScenes(tmp_path / "root", "val").scene_ids == ("scene0004_00",)
    with pytest.raises(ValueError, match="expected only as one of train, val, got 'test'"):
        write_rooms(SOURCE, tmp_path / "root", only="test")


def test_numbers_out_of_range(tmp_path: Path, models: Models) -> None:
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="expected at least 5 scenes, of which one is for validation, got 4"):
        write_rooms(SOURCE, root, scenes=4)
    with pytest.raises(ValueError, match="got seed -1 and index 0"):
        write_rooms(SOURCE, root, seed=-1)
    with pytest.raises(ValueError, match="got seed 0 and index -2"):
        generate(models, 0, -2)
    for wrong in ({"cameras": 0}, {"spacing": 0.2}, {"spacing": 0.001}):
        with pytest.raises(ValueError, match=r"one camera and a spacing of 0\.01 to 0\.1"):
            write_rooms(SOURCE, root, **wrong)
    assert list(tmp_path.iterdir()) == []


# --- the command and the picture


@pytest.mark.parametrize("bar", [True, False])
def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bar: bool
) -> None:
    tiny(monkeypatch)
    monkeypatch.setattr("probemb_shapes.rooms.__main__.generate", lambda *_, **__: _empty())
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    root, picture = tmp_path / "root", tmp_path / "sheet.png"
    main(["--source", str(SOURCE), "--root", str(root), "--scenes", "5"] + ["--sheet", str(picture)] * bar)
    out, err = capsys.readouterr()
    assert out.startswith("scenes: train 4, val 1\n")
    assert str(root) in out.splitlines()
    assert ("5/5" in err) == bar
    assert picture.exists() == bar
    assert len(ScanNetScenes(root, "train")) == 4


def _empty() -> scan.Scan:
    rng = np.random.default_rng(0)
    return scan.scan_room("empty", Room((2.0, 2.0, 2.4), rng), rng, cameras=2, spacing=0.08)


def test_contact_sheet(tmp_path: Path) -> None:
    one = _empty()
    path = sheet.contact_sheet(tmp_path / "sheet.png", [one] * 3, pixels=40)
    from matplotlib.image import imread

    image = imread(path)
    assert image.shape[:2] == (80, 240)
    for row, column in ((0, 0), (0, 5), (1, 2)):
        tile = image[40 * row : 40 * row + 40, 40 * column : 40 * column + 40, :3]
        assert (tile < 1).any(axis=2).mean() > 0.05
    assert (image[40:, 120:, :3] == 1).all()  # no fourth
    for scans, columns, pixels in (([], 2, 40), ([one], 0, 40), ([one], 2, 0)):
        with pytest.raises(ValueError, match="at least one scan, column and pixel"):
            sheet.contact_sheet(path, scans, columns=columns, pixels=pixels)


def test_matplotlib_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    spec = importlib.util.spec_from_file_location("without_matplotlib", sheet.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r'pip install -e "\.\[viz\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
