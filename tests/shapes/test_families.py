"""Generated furniture: repeatable, varied, built as furniture is, and whole or not there at all."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from probemb_adapters.partnet import PartNetInstances, evaluation_targets
from probemb_shapes.families import sheet, write
from probemb_shapes.families.__main__ import main
from probemb_shapes.families.sheet import contact_sheet, render
from probemb_shapes.families.tree import Node, parts
from probemb_shapes.families.write import FAMILIES, FIRST_INDEX, GeneratedReport, generate, sample, write_generated

SHAPES = 400
CATEGORIES = tuple(FAMILIES)
Array = np.ndarray[Any, np.dtype[Any]]


class Leaf(NamedTuple):
    path: str
    vertices: Array
    faces: int
    extents: Array  # along its principal axes, ascending

    @property
    def size(self) -> Array:
        return np.asarray(np.ptp(self.vertices, axis=0))


class Shape(NamedTuple):
    leaves: list[Leaf]
    paths: list[str]  # of all nodes

    def count(self, *names: str) -> int:
        """Nodes whose path ends in one of the names."""
        return sum(path.endswith(names) for path in self.paths)

    def classes(self, under: str, depth: int = 9) -> frozenset[str]:
        """The paths below a name, cut to a depth."""
        return frozenset("/".join(leaf.path.split("/")[:depth]) for leaf in self.leaves if under in leaf.path)

    def form(self, *names: str) -> int:
        """Faces of the first leaf whose path ends in one of the names, which tells its construction; 0 for none."""
        return next((leaf.faces for leaf in self.leaves if leaf.path.endswith(names)), 0)

    @property
    def proportions(self) -> tuple[int, ...]:
        vertices = np.concatenate([leaf.vertices for leaf in self.leaves])
        size = np.ptp(vertices, axis=0)
        return tuple(np.round(1.5 * np.log2(size[:2] / size[2])).astype(int).tolist())


def principal_extents(vertices: Array) -> Array:
    centred = vertices - vertices.mean(0)
    return np.sort(np.ptp(centred @ np.linalg.eigh(centred.T @ centred)[1], axis=0))


def read_shape(root: Node) -> Shape:
    found = parts(root)
    leaves = [
        Leaf(p.path, mesh.vertices, len(mesh.faces), principal_extents(mesh.vertices))
        for p in found
        if (mesh := p.node.mesh) is not None
    ]
    return Shape(leaves, [part.path for part in found])


@pytest.fixture(scope="module")
def shapes() -> dict[str, list[Shape]]:
    return {name: [read_shape(generate(name, 0, i)) for i in range(SHAPES)] for name in CATEGORIES}


# --- the shapes


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_seed_same_shape(category: str) -> None:
    """Whatever was made before; the global generator is not touched."""
    state = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    alone = sample(category, 3, 17)
    for i in range(3):
        sample(category, 3, i)
    again = sample(category, 3, 17)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index, union-attr]  # noqa: NPY002
    for first, second in zip(alone[1:], again[1:], strict=True):
        assert first.tobytes() == second.tobytes()
    for other in (sample(category, 4, 17), sample(category, 3, 18)):
        assert other[1].tobytes() != alone[1].tobytes()
    # Fewer points are a sample of the same shape.
    small = sample(category, 3, 17, 2000)
    assert small[1].shape == (2000, 3)
    assert [p.path for p in parts(small[0])] == [p.path for p in parts(alone[0])]


@pytest.mark.parametrize("category", CATEGORIES)
def test_cloud(category: str) -> None:
    for index in range(5):
        root, pos, leaf = sample(category, 0, index)
        assert (pos.dtype, leaf.dtype, pos.shape, leaf.shape) == (np.float32, np.int32, (10_000, 3), (10_000,))
        np.testing.assert_allclose(np.linalg.norm(pos.astype(np.float64), axis=1).max(), 1, atol=1e-6)
        np.testing.assert_allclose(pos.min(0) + pos.max(0), 0, atol=1e-6)
        # Every leaf has points, in random order, and they lie on it.
        leaves = read_shape(root).leaves
        assert np.unique(leaf).tolist() == list(range(1, len(leaves) + 1))
        assert (np.diff(leaf[:1000]) != 0).mean() > 0.3
        whole = np.concatenate([part.vertices for part in leaves])
        scale = np.ptp(whole, axis=0).max() / np.ptp(pos, axis=0).max()
        for i, part in enumerate(leaves, start=1):
            inside = np.ptp(pos[leaf == i], axis=0) * scale
            assert (inside <= part.size * 1.05 + 1e-3).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_two_alike(category: str, shapes: dict[str, list[Shape]]) -> None:
    """In the parts of each class and their sizes, to a thousandth of the whole."""

    def signature(shape: Shape) -> tuple[tuple[str, tuple[int, ...]], ...]:
        whole = np.ptp(np.concatenate([leaf.vertices for leaf in shape.leaves]), axis=0).max()
        return tuple(
            sorted((p.path, tuple(np.round(1000 * p.size / whole).astype(int).tolist())) for p in shape.leaves)
        )

    assert len({signature(shape) for shape in shapes[category]}) == SHAPES


@pytest.mark.parametrize("category", CATEGORIES)
def test_number_of_parts(category: str, shapes: dict[str, list[Shape]]) -> None:
    counts = np.array([len(shape.leaves) for shape in shapes[category]])
    assert counts.min() >= 3
    assert counts.max() <= 40
    assert 7 <= np.median(counts) <= 20
    assert len(np.unique(counts)) >= 15
    assert (counts <= 6).mean() > 0.02
    assert (counts >= 18).mean() > 0.05


@pytest.mark.parametrize("category", CATEGORIES)
def test_levels(category: str, shapes: dict[str, list[Shape]]) -> None:
    levels = FAMILIES[category].levels
    assert list(levels) == [1, 2, 3]
    for paths in levels.values():
        assert len(set(paths)) == len(paths)
        # A leaf has one class at most.
        assert not any(b.startswith(f"{a}/") for a, b in permutations(paths, 2))
    for fine, coarse in ((3, 2), (2, 1)):
        for path in levels[fine]:
            assert sum(f"{path}/".startswith(f"{above}/") for above in levels[coarse]) == 1
    assert {leaf.path for shape in shapes[category] for leaf in shape.leaves} == set(levels[3])


def alike(a: Leaf, b: Leaf) -> bool:
    """Of the same thickness and width: bars or boards whose place and length alone tell them apart."""
    return bool((np.abs(a.extents[:2] - b.extents[:2]) <= 0.1 * a.extents[:2]).all())


@pytest.mark.parametrize("category", CATEGORIES)
def test_repeated_parts_and_look_alikes(category: str, shapes: dict[str, list[Shape]]) -> None:
    repeated = pairs = 0
    for shape in shapes[category]:
        repeated += max(Counter(leaf.path for leaf in shape.leaves).values()) > 1
        pairs += any(a.path != b.path and alike(a, b) for a, b in combinations(shape.leaves, 2))
    assert repeated > 0.5 * SHAPES
    # Only what a part belongs to tells its class.
    assert pairs > 0.1 * SHAPES


@pytest.mark.parametrize("category", CATEGORIES)
def test_parts_touch(category: str) -> None:
    total = apart = 0
    for index in range(25):
        _, pos, leaf = sample(category, 1, index, 5000)
        for part in np.unique(leaf):
            # Neighbours among 5,000 points of the unit sphere are about 0.03 apart.
            gap, _ = cKDTree(pos[leaf == part]).query(pos[leaf != part], distance_upper_bound=0.08)
            apart += not np.isfinite(gap).any()
            total += 1
    assert apart <= 0.01 * total


def tilted(shape: Shape, name: str) -> bool:
    """A flat part of that name is turned about the vertical."""
    return any(
        leaf.path.endswith(name) and np.sort(leaf.size)[0] > 0.1 * np.sort(leaf.size)[1] for leaf in shape.leaves
    )


# What one sees of each design choice.
CHOICES: dict[str, dict[str, Callable[[Shape], Any]]] = {
    "Chair": {
        "headrest": lambda s: s.count("headrest"),
        "back": lambda s: s.classes("chair_back"),
        "slats": lambda s: s.count("back_surface_vertical_bar", "back_surface_horizontal_bar"),
        "form of the back": lambda s: s.form("back_single_surface"),
        "arms": lambda s: s.classes("chair_arm"),
        "base": lambda s: s.classes("chair_base", 3),
        "form of the legs": lambda s: s.form("leg"),
        "stretchers": lambda s: s.count("bar_stretcher"),
        "seat": lambda s: s.classes("chair_seat"),
        "form of the seat": lambda s: s.form("seat_single_surface"),
        "feet and wheels": lambda s: s.count("foot", "wheel", "runner"),
        "proportions": lambda s: s.proportions,
    },
    "Table": {
        "outline of the top": lambda s: s.form("tabletop_surface/board", "tabletop_surface/glass"),
        "kind of top": lambda s: s.classes("tabletop_"),
        "boards": lambda s: s.count("tabletop_surface/board"),
        "hutch": lambda s: s.classes("hutch"),
        "base": lambda s: s.classes("table_base", 3),
        "form of the legs": lambda s: s.form("leg"),
        "stretchers": lambda s: s.count("bar_stretcher"),
        "shelves": lambda s: s.count("table_base/shelf"),
        "drawers": lambda s: s.count("drawer_front"),
        "handles": lambda s: s.form("handle"),
        "aprons": lambda s: s.count("apron"),
        "proportions": lambda s: s.proportions,
    },
    "Lamp": {
        "base": lambda s: s.classes("lamp_base"),
        "form of the base": lambda s: s.form("base_part", "ceiling_canopy", "wall_plate"),
        "body": lambda s: s.classes("lamp_body"),
        "poles": lambda s: s.count("pole"),
        "arms": lambda s: s.classes("lamp_arm"),
        "number of arms": lambda s: s.count("arm_bar", "arm_curved_bar"),
        "section of bars": lambda s: s.form("arm_bar", "arm_curved_bar"),
        "shade": lambda s: s.form("lamp_shade"),
        "bulb": lambda s: s.form("light_bulb"),
        "fittings": lambda s: s.classes("lamp_head") - s.classes("lamp_shade") - s.classes("light_bulb"),
        "heads": lambda s: s.count("lamp_head"),
        "suspension": lambda s: (s.classes("suspension"), s.count("chain_link")),
        "power cord": lambda s: s.count("power_cord"),
        "proportions": lambda s: s.proportions,
    },
    "StorageFurniture": {
        "columns": lambda s: s.count("vertical_divider_panel"),
        "doors": lambda s: s.count("cabinet_door"),
        "drawers": lambda s: s.count("/drawer"),
        "shelves": lambda s: s.count("shelf"),
        "fronts": lambda s: s.form("door_panel", "door_frame", "drawer_front"),
        "handles": lambda s: s.form("handle"),
        "base": lambda s: s.classes("cabinet_base"),
        "feet": lambda s: s.form("foot", "caster"),
        "carcass": lambda s: s.classes("cabinet_frame") - s.classes("back_panel") - s.classes("divider"),
        "countertop": lambda s: s.form("countertop"),
        "back": lambda s: s.count("back_panel"),
        "boxes": lambda s: s.count("drawer_bottom") > 0,
        "open doors": lambda s: tilted(s, "door_panel") or tilted(s, "door_frame"),
        "proportions": lambda s: s.proportions,
    },
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_design_choices_are_many_and_independent(category: str, shapes: dict[str, list[Shape]]) -> None:
    seen = {name: [look(shape) for shape in shapes[category]] for name, look in CHOICES[category].items()}
    assert len(seen) >= 8
    for name, values in seen.items():
        # No value is nearly always taken.
        assert Counter(values).most_common(1)[0][1] < 0.98 * SHAPES, name
    for (a, first), (b, second) in permutations(seen.items(), 2):
        # One never follows from the other: some value of a, seen often, goes with several of b.
        common = [value for value, count in Counter(first).items() if count >= 0.02 * SHAPES]
        assert any(len({y for x, y in zip(first, second, strict=True) if x == value}) > 1 for value in common), (a, b)


@pytest.mark.parametrize("category", CATEGORIES)
def test_design_choices_are_documented(category: str) -> None:
    text = sys.modules[FAMILIES[category].make.__module__].__doc__ or ""
    text += FAMILIES[category].make.__doc__ or ""
    numbers = [int(number) for number in re.findall(r"^ *(\d+)\. ", text, flags=re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 8


def test_rotations_and_bends(shapes: dict[str, list[Shape]]) -> None:
    """Many shapes have a part that its own axes bound much tighter than the shape's do."""
    for category in CATEGORIES:
        turned = sum(
            any(leaf.size.prod() > 2 * leaf.extents.prod() + 1e-6 for leaf in shape.leaves)
            for shape in shapes[category]
        )
        assert turned > 0.1 * SHAPES, category


def test_generate_refuses() -> None:
    with pytest.raises(ValueError, match="expected a category of Chair, Table, Lamp, StorageFurniture, got 'Bed'"):
        generate("Bed", 0, 0)
    for seed, index in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match=f"got seed {seed} and index {index}"):
            generate("Chair", seed, index)


# --- what is written


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, GeneratedReport]]:
    root = tmp_path_factory.mktemp("generated") / "deep" / "root"
    return root, {name: write_generated(root, name, train=5, val=2, test=3, seed=7) for name in CATEGORIES}


@pytest.mark.parametrize("category", CATEGORIES)
def test_partnet_reads_it(written: tuple[Path, dict[str, GeneratedReport]], category: str) -> None:
    root, reports = written
    report = reports[category]
    assert report.shapes == {"train": 5, "val": 2, "test": 3}
    levels = FAMILIES[category].levels
    counted = {level: Counter[str]() for level in levels}
    per_shape = []
    for split, count in report.shapes.items():
        items = {n: list(PartNetInstances(root, category, n, split, random_points=False)) for n in levels}
        assert len(items[3]) == count
        for row in range(count):
            index = FIRST_INDEX[split] + row
            tree, pos, leaf = sample(category, 7, index)
            assert items[3][row].anno_id == f"{category}-7-{index}"
            for level, classes in levels.items():
                item = items[level][row]
                np.testing.assert_array_equal(item.pos, pos[item.point])
                assert float(item.other.float().mean()) < 0.5
                targets = evaluation_targets(item)
                counted[level].update(classes[c] for c in targets.gt_classes.tolist())
                assert set(targets.gt_instance[~item.other].tolist()) == set(range(len(targets.gt_classes)))
            # Each part of level 3 is a leaf, and lies in one part of each coarser level.
            fine = items[3][row]
            assert not fine.other.any()
            ids = leaf[fine.point]
            assert len(np.unique(np.stack((ids, fine.instance), 1), axis=0)) == len(np.unique(ids))
            for level in (1, 2):
                pairs = np.unique(np.stack((ids, items[level][row].instance), 1), axis=0)
                assert len(pairs) == len(np.unique(ids))
            per_shape.append(len(np.unique(ids)))
            assert per_shape[-1] == len(read_shape(tree).leaves)
    assert report.parts == {n: {path: counted[n][path] for path in paths} for n, paths in levels.items()}
    assert report.parts_per_shape == (min(per_shape), float(np.median(per_shape)), max(per_shape))


def test_files_are_partnet_s(written: tuple[Path, dict[str, GeneratedReport]]) -> None:
    folder = written[0] / "ins_seg_h5" / "Table"
    names = {f"{split}-00.{ending}" for split in FIRST_INDEX for ending in ("h5", "json")}
    assert {p.name for p in folder.iterdir()} == names | {"manifest.json"}
    with h5py.File(folder / "test-00.h5") as file:
        assert {name: (file[name].dtype.str, file[name].shape, file[name].chunks[0]) for name in file} == {
            "pts": ("<f4", (3, 10_000, 3), 1),
            "label": ("<i4", (3, 10_000), 1),
        }
    stats = written[0] / "stats" / "after_merging_label_ids" / "Table-level-1.txt"
    assert stats.read_text().splitlines()[0] == f"1 {FAMILIES['Table'].levels[1][0]} leaf"


def test_report_is_a_table(written: tuple[Path, dict[str, GeneratedReport]]) -> None:
    report = written[1]["Lamp"]
    lines = str(report).splitlines()
    assert lines[0] == "shapes: train 5, val 2, test 3"
    least, median, most = report.parts_per_shape
    assert lines[1] == f"parts a shape: {least} to {most}, median {median:g}"
    assert f"level 3: 23 classes, {sum(report.parts[3].values())} parts" in lines
    assert lines[-1].split() == ["lamp/power_cord", str(report.parts[3]["lamp/power_cord"])]


def test_equal_to_the_byte_and_independent_of_count(
    written: tuple[Path, dict[str, GeneratedReport]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = written[0]
    write_generated(tmp_path / "again", "Lamp", train=5, val=2, test=3, seed=7)
    expected = {name: data for name, data in contents(root).items() if "Lamp" in name}
    assert contents(tmp_path / "again") == expected
    # More shapes, in several files: the same ones first; none of val: no file.
    monkeypatch.setattr(write, "SHAPES_PER_FILE", 3)
    report = write_generated(tmp_path / "more", "Lamp", train=8, val=0, test=1, seed=7)
    folder = tmp_path / "more" / "ins_seg_h5" / "Lamp"
    assert sorted(p.name for p in folder.glob("*.h5")) == ["test-00.h5", "train-00.h5", "train-01.h5", "train-02.h5"]
    more = PartNetInstances(tmp_path / "more", "Lamp", 3, "train", random_points=False)
    assert len(more) == 8
    for few, item in zip(PartNetInstances(root, "Lamp", 3, "train", random_points=False), more, strict=False):
        assert (few.anno_id, few.pos.tolist()) == (item.anno_id, item.pos.tolist())
    assert report.shapes["val"] == 0


class Bar:
    """A progress bar: what it was given, and whether it came to its end."""

    def __init__(self, stop: int = 1000) -> None:
        self.stop = stop
        self.closed = False
        self.shapes: list[int] = []

    def __call__(self, shapes: Iterable[int]) -> Iterator[int]:
        for shape in shapes:
            if shape == self.stop:
                raise KeyboardInterrupt
            self.shapes.append(shape)
            yield shape
        self.closed = True


def test_complete_cache_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first, second = Bar(), Bar()
    report = write_generated(root, "Table", train=2, val=1, test=0, progress=first)
    assert (first.shapes, first.closed) == ([0, 1, 2], True)
    before = contents(root)
    assert write_generated(root, "Table", train=2, val=1, test=0, progress=second) == report
    assert second.shapes == []
    assert contents(root) == before
    # A damaged one, a manifest of another making, other arguments: written anew.
    folder = root / "ins_seg_h5" / "Table"
    (folder / "train-00.h5").write_bytes(b"cut off")
    assert write_generated(root, "Table", train=2, val=1, test=0) == report
    assert contents(root) == before
    for text in ("{", json.dumps({"version": 0}), json.dumps([])):
        (folder / "manifest.json").write_text(text)
        write_generated(root, "Table", train=2, val=1, test=0)
        assert contents(root) == before
    other = write_generated(root, "Table", train=1, val=0, test=0, seed=5)
    assert other.shapes == {"train": 1, "val": 0, "test": 0}
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "train-00.h5", "train-00.json"}
    assert not list(tmp_path.glob(".*"))


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    with pytest.raises(KeyboardInterrupt):
        write_generated(root, "Table", train=2, val=1, test=0, progress=Bar(stop=2))
    assert list(tmp_path.iterdir()) == []
    write_generated(root, "Table", train=1, val=0, test=0)
    before = contents(root)
    with pytest.raises(KeyboardInterrupt):
        write_generated(root, "Table", train=2, val=1, test=0, progress=Bar(stop=2))
    assert contents(root) == before
    assert [p.name for p in tmp_path.iterdir()] == ["root"]

    # Between the lists of classes and the folder: no half-written category, and the next call mends it.
    replace = os.replace

    def stop_at_folder(source: Path, target: Path) -> None:
        if target.name == "Lamp":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_folder)
    with pytest.raises(KeyboardInterrupt):
        write_generated(root, "Lamp", train=1, val=0, test=0)
    assert not (root / "ins_seg_h5" / "Lamp").exists()
    monkeypatch.undo()
    write_generated(root, "Lamp", train=1, val=0, test=0)
    assert len(PartNetInstances(root, "Lamp", 2, "train")) == 1
    assert {name: data for name, data in contents(root).items() if "Lamp" not in name} == before


@pytest.mark.parametrize(
    "foreign",
    [
        "notes.txt",
        "ins_seg_h5/Chair/train-00.h5",
        "ins_seg_h5/Lamp/train-00.h5",
        "stats/after_merging_label_ids/Chair-level-2.txt",
    ],
)
def test_foreign_folder_is_refused(tmp_path: Path, foreign: str) -> None:
    """Also PartNet itself, and its other categories."""
    root = tmp_path / "root"
    (root / foreign).parent.mkdir(parents=True)
    (root / foreign).write_text("mine")
    with pytest.raises(FileExistsError, match=r"was not written by this function.*pass an empty or new folder"):
        write_generated(root, "Chair", train=1, val=0, test=0)
    assert contents(root) == {foreign: b"mine"}
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("mine")
    with pytest.raises(FileExistsError, match="root was not written"):
        write_generated(tmp_path / "root", "Chair", train=1, val=0, test=0)


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'Bed'"):
        write_generated(tmp_path, "Bed", train=1, val=0, test=0)
    for counts in ((0, 0, 0), (2, -1, 1)):
        with pytest.raises(ValueError, match=r"one in all, got \{'train': "):
            write_generated(tmp_path, "Chair", train=counts[0], val=counts[1], test=counts[2])
    with pytest.raises(ValueError, match="got seed -3"):
        write_generated(tmp_path, "Chair", train=1, val=0, test=0, seed=-3)
    assert list(tmp_path.iterdir()) == []


# --- the command and the picture


@pytest.mark.parametrize("bar", [True, False])
def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bar: bool
) -> None:
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sheet, "contact_sheet", partial(contact_sheet, rows=1, columns=2, pixels=30))
    root = tmp_path / "root"
    arguments = ["--root", str(root), "--category", "Lamp", "Table", "--shapes", "10", "--seed", "2"]
    main(arguments + ["--sheet", str(tmp_path / "sheet.png")] * bar)
    out, err = capsys.readouterr()
    assert "Lamp\nshapes: train 7, val 1, test 2\n" in out
    assert str(root) in out.splitlines()
    assert ("10/10" in err) == bar
    assert (tmp_path / "sheet.png").exists() == bar
    assert len(PartNetInstances(root, "Table", 1, "test")) == 2
    assert len(PartNetInstances(root, "Lamp", 3, "train")) == 7


def test_render_shows_the_nearest_part() -> None:
    from probemb_shapes.families.primitives import box

    front, behind = Node("a", mesh=box((1, 1, 0.1), (0, 0, 1))), Node("b", mesh=box((3, 3, 0.1), (0, 0, -1)))
    image = render(Node("root", (front, behind)), 60, turn=0, tilt=0)
    assert image.shape == (60, 60, 3)
    assert ((image >= 0) & (image <= 1)).all()
    assert (image[0, 0] == 1).all()
    assert np.abs(image[30, 30] - image[15, 15]).max() > 0.2  # two colours
    np.testing.assert_allclose(image[15, 15], image[45, 45], atol=0.05)


def test_contact_sheet(tmp_path: Path) -> None:
    path = contact_sheet(tmp_path / "sheet.png", categories=["Chair", "Lamp"], rows=1, columns=3, pixels=40)
    from matplotlib.image import imread

    image = imread(path)
    assert image.shape[:2] == (80, 120)
    for row in range(2):
        for column in range(3):
            tile = image[40 * row : 40 * row + 40, 40 * column : 40 * column + 40, :3]
            assert (tile < 1).any(axis=2).mean() > 0.01
    with pytest.raises(ValueError, match="at least one category"):
        contact_sheet(path, categories=[])
    with pytest.raises(ValueError, match="got 'Bed'"):
        contact_sheet(path, categories=["Bed"])


@pytest.mark.parametrize(
    ("module", "missing", "extra"), [(write, "h5py", "partnet"), (sheet, "matplotlib.figure", "viz")]
)
def test_extra_missing(monkeypatch: pytest.MonkeyPatch, module: Any, missing: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.spec_from_file_location("without_extra", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=rf'pip install -e "\.\[{extra}\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
