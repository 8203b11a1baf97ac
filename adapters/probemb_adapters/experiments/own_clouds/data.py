"""Labelled clouds of a folder: read, split by file, brought into one frame, drawn to a number of points."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import Compose, RandomRotate

from probemb_adapters.clouds import Array, Cloud, Up, check_digits, read_clouds, y_up
from probemb_adapters.experiments.run import draw_order
from probemb_adapters.partnet import EvaluationTargets, upright_augmentation
from probemb_lib import Finding, GaussianEmbedding, check_batch, index_instances
from probemb_lib.aggregate import instance_classes
from probemb_lib.labels import IGNORED, NO_INSTANCE

SPLITS = ("train", "val", "test")
_ALSO = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_HELD_OUT = 0.15  # of the files, for validation and for test
_INSIDE = 1, 99  # per cent of the coordinates: stray points move and scale nothing


# --- files


def read_labelled(
    folder: Path,
    instance: str | None = None,
    semantic: str | None = None,
    background: Sequence[int | str] = (),
    class_names: Mapping[int, str] | None = None,
    ignored: Sequence[int | str] = (),
) -> list[Cloud]:
    """The clouds of a folder, all with instances, and all or none with classes.

    Raises:
        FileNotFoundError, ValueError: see `read_clouds`; clouds without instances, or some without classes. The message
            names the properties that are there.
    """
    clouds = read_clouds(
        folder,
        instance=instance,
        semantic=semantic,
        no_instance=background,
        ignored=ignored,
        class_names=class_names,
    )
    bare = [cloud for cloud in clouds if cloud.instance is None]
    if 0 < len(bare) < len(clouds):
        raise ValueError(
            f"{folder}: {len(bare)} of {len(clouds)} clouds have no property with the instance of each point: "
            f"{listed([cloud.name for cloud in bare])}; move them out of the folder, they can be predicted"
        )
    if bare:
        raise ValueError(
            f"{bare[0].path}: expected a property with the instance of each point, got {_names(bare[0])} "
            f"({len(bare)} of {len(clouds)} clouds are so): name it, --instance NAME"
        )
    bare = [cloud for cloud in clouds if cloud.semantic is None]
    if 0 < len(bare) < len(clouds):
        raise ValueError(
            f"{bare[0].path}: expected classes as in {len(clouds) - len(bare)} of {len(clouds)} clouds, got "
            f"{_names(bare[0])}: name the property of all clouds, --semantic NAME"
        )
    return clouds


def _names(cloud: Cloud) -> str:
    return f"the properties {', '.join(cloud.properties)}" if cloud.properties else "positions alone"


def split_clouds(folder: Path, clouds: Sequence[Cloud], seed: int) -> dict[str, list[Cloud]]:
    """By the subfolders train, val and test; without them by file, or by cloud where one file has them all.

    Warns of clouds that are in other subfolders beside these, and of a cloud that is on two sides.

    Raises:
        ValueError: some of the subfolders without the others, or fewer than three files or clouds.
    """
    inside = [_subfolder(folder, cloud) for cloud in clouds]
    there = [name for name in SPLITS if name in inside]
    if there:
        if len(there) < len(SPLITS):
            raise ValueError(f"{folder}: expected clouds in the subfolders train, val and test, got {', '.join(there)}")
        others = [cloud.name for cloud, at in zip(clouds, inside, strict=True) if at not in SPLITS]
        if others:
            warnings.warn(
                f"{folder}: {len(others)} clouds are in none of train, val and test, and left out: {listed(others)}",
                stacklevel=2,
            )
        return _checked({name: [c for c, at in zip(clouds, inside, strict=True) if at == name] for name in SPLITS})
    files = [str(cloud.path) for cloud in clouds]
    units = files if len(set(files)) > 1 else [cloud.name for cloud in clouds]
    names = sorted(set(units))
    if len(names) < len(SPLITS):
        raise ValueError(
            f"{folder}: expected at least three files, one each to train on, to fit the threshold on and to test on, "
            f"got {len(names)}: label more clouds, or cut yours into places that do not overlap, a file each"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    held = max(1, round(_HELD_OUT * len(names)))
    of = {names[row]: "test" if i < held else "val" if i < 2 * held else "train" for i, row in enumerate(order)}
    return _checked({name: [c for c, unit in zip(clouds, units, strict=True) if of[unit] == name] for name in SPLITS})


def _checked(split: dict[str, list[Cloud]]) -> dict[str, list[Cloud]]:
    first: dict[int, tuple[str, str]] = {}
    for side, clouds in split.items():
        for cloud in clouds:
            there, name = first.setdefault(fingerprint(cloud), (side, cloud.name))
            if there != side:
                warnings.warn(
                    f"{cloud.name} of {side} is the cloud {name} of {there}: the numbers will be better than on others",
                    stacklevel=3,
                )
    return split


def _subfolder(folder: Path, cloud: Cloud) -> str | None:
    if cloud.path is None or not folder.is_dir():
        return None
    parts = cloud.path.relative_to(folder).parts
    return _ALSO.get(parts[0].lower(), parts[0].lower()) if len(parts) > 1 else None


def class_values(clouds: Iterable[Cloud]) -> tuple[int, ...]:
    """The classes on points of instances, as the files number them, in order; none where there are no classes."""
    found: set[int] = set()
    for cloud in clouds:
        if cloud.semantic is not None and cloud.instance is not None:
            found |= set(np.unique(cloud.semantic[(cloud.instance >= 0) & (cloud.semantic >= 0)]).tolist())
    return tuple(sorted(found))


def class_names_of(clouds: Iterable[Cloud], values: Sequence[int], named: Sequence[str] = ()) -> tuple[str, ...]:
    """The name of each class of ``values``: as it was ``named`` by NUMBER=NAME, else in the files, else its number.

    None at all where no class has a name. Warns of names of classes that are not among the ``values``.

    Raises:
        ValueError: a name is not of that form, two classes share one, or files disagree.
    """
    given: dict[int, str] = {}
    for text in named:
        number, equals, name = text.partition("=")
        if not (equals and name.strip() and number.strip().lstrip("-").isdecimal()):
            raise ValueError(f"--class-names: expected NUMBER=NAME, such as 1=stem 2=leaf, got {text!r}")
        given[int(number)] = name.strip()
    if unused := sorted(set(given) - set(values)):
        warnings.warn(
            f"--class-names: no instance to train on has the class {listed([f'{n} ({given[n]})' for n in unused])}; "
            f"the classes are {listed(values) or 'none'}",
            stacklevel=2,
        )
    found: dict[int, str] = {}
    for cloud in clouds:
        for value, own in cloud.class_names.items():
            if found.setdefault(value, own) != own and value not in given:
                raise ValueError(
                    f"{cloud.name}: expected one name for class {value} in all files, got {found[value]} and {own}: "
                    f"say which, --class-names {value}=NAME"
                )
    known = {**found, **given}
    names = tuple(known.get(value, f"class {value}") for value in values)
    if len(set(names)) < len(names):
        raise ValueError(f"expected a name of its own for each class, got {', '.join(names)} for {listed(values)}")
    return names if any(value in known for value in values) else ()


def known_classes(values: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """The classes by number; without names, their numbers are their names."""
    return dict(zip(values, names or map(str, values), strict=True))


def check_classes(known: Mapping[int, str], clouds: Sequence[Cloud], way: str) -> None:
    """Refuse clouds with classes that are not among the ``known``, or with none where some are known.

    Raises:
        ValueError: with ``way``, what to do.
    """
    for cloud in clouds:
        expected = listed([*known.values()])
        if bool(known) and cloud.semantic is None:
            raise ValueError(f"{cloud.path}: expected classes {expected}, got {_names(cloud)}: --semantic NAME")
        unknown = sorted(set(class_values([cloud])) - set(known)) if known else []
        if unknown:
            got = listed([cloud.class_names.get(value, value) for value in unknown])
            raise ValueError(f"{cloud.name}: expected the classes {expected}, got {got} as well: {way}")


def listed(values: Sequence[object]) -> str:
    """The first ten, and how many more."""
    more = f" and {len(values) - 10} more" if len(values) > 10 else ""
    return ", ".join(map(str, values[:10])) + more


def fingerprint(cloud: Cloud) -> int:
    """Of the positions, by which a cloud is known again whatever its file is called, and in which precision."""
    return zlib.crc32(np.ascontiguousarray(cloud.pos, dtype=np.float32).tobytes())


def findings_of(cloud: Cloud) -> list[Finding]:
    """The usual mix-ups in one cloud, by :func:`~probemb_lib.check_batch`."""
    semantic = None if cloud.semantic is None else np.where(cloud.semantic < 0, IGNORED, cloud.semantic)
    return check_batch(
        torch.from_numpy(_centred(cloud.pos)),
        torch.as_tensor(cloud.instance),
        None if semantic is None else torch.from_numpy(semantic),
        background=None,
    )


# --- the network's frame


def _centre(pos: Array) -> Array:
    low, high = np.percentile(pos, _INSIDE, axis=0)
    return np.asarray((low + high) / 2)


def _centred(pos: Array) -> Array:
    return np.asarray(pos - _centre(pos))


def radius(cloud: Cloud) -> float:
    """Of the cloud around its middle, without stray points, in the unit of the file."""
    return float(np.percentile(np.linalg.norm(_centred(cloud.pos), axis=1), _INSIDE[1]))


@dataclass(frozen=True)
class Frame:
    """Centred in float64, y up, and divided by a length that all clouds share."""

    up: Up
    unit: float

    def positions(self, pos: Array) -> torch.Tensor:
        """(N, 3) as in the file -> (N, 3) float32."""
        check_digits(pos, "positions")
        return torch.from_numpy((y_up(_centred(pos), self.up) / self.unit).astype(np.float32))

    def lengths_of_file(
        self, pos: torch.Tensor, embedding: GaussianEmbedding
    ) -> tuple[torch.Tensor, GaussianEmbedding]:
        """Both in the unit of the file, but still centred and y up: for pictures."""
        return self.unit * pos, GaussianEmbedding(self.unit * embedding.mean, embedding.log_std + math.log(self.unit))

    def to_file(self, embedding: GaussianEmbedding, pos: Array) -> GaussianEmbedding:
        """Gaussians of a cloud that lies at ``pos`` in its file, back in the frame and the unit of the file; float64.

        >>> pos = np.array([[5e6, 1, 2], [5e6, 1, 3]])
        >>> frame = Frame("z", unit=0.5)
        >>> x = GaussianEmbedding(frame.positions(pos), torch.zeros(2, 3))
        >>> bool(torch.allclose(frame.to_file(x, pos).mean, torch.from_numpy(pos)))
        True
        """
        turn = torch.from_numpy(y_up(np.eye(3), self.up).T)
        mean = embedding.mean.double() @ turn * self.unit + torch.from_numpy(_centre(pos))
        log_std = embedding.log_std.double().expand(-1, 3) @ turn.abs() + math.log(self.unit)
        return GaussianEmbedding(mean, log_std)


def common_unit(clouds: Sequence[Cloud]) -> float:
    """The radius of the largest cloud, to three digits; stray points do not count.

    Raises:
        ValueError: all points of each cloud lie at one place.
    """
    largest = max(map(radius, clouds))
    if largest == 0:
        raise ValueError("expected clouds with an extent, got all points of each at one place")
    return float(f"{largest:.3g}")


def labelled_data(cloud: Cloud, frame: Frame, classes: Sequence[int]) -> Data:
    """The cloud for the network: column 0 for points of no instance, column 1 + i for the i-th class.

    Without classes every instance is of column 1. Points of an instance without a class are −100, ignored.
    """
    if cloud.instance is None:
        raise ValueError(f"{cloud.name}: expected instances, got none")
    if classes and cloud.semantic is not None:
        place = np.searchsorted(classes, cloud.semantic).clip(0, len(classes) - 1)
        own = np.where(np.asarray(classes)[place] == cloud.semantic, 1 + place, IGNORED)
    else:
        own = np.ones_like(cloud.instance)
    semantic = np.where(cloud.instance >= 0, own, np.where(cloud.instance == NO_INSTANCE, 0, IGNORED))
    return Data(
        pos=frame.positions(cloud.pos),
        instance=torch.from_numpy(cloud.instance),
        semantic=torch.from_numpy(semantic),
    )


class TrainingClouds(Dataset[Data]):
    """Clouds drawn to ``points`` points by torch's random numbers, turned about y and augmented.

    Clouds with fewer points have some twice.
    """

    def __init__(self, clouds: Sequence[Data], points: int) -> None:
        self.clouds, self.points = clouds, points
        self.augmentation = Compose([RandomRotate(180, axis=1), upright_augmentation()])

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, row: int) -> Data:
        cloud = self.clouds[row]
        count = len(cloud.pos)
        some = torch.randperm(count)[: self.points]
        if count < self.points:
            some = torch.cat([some, torch.randint(count, (self.points - count,))])
        drawn = self.augmentation(_rows(cloud, some))
        if not isinstance(drawn, Data):
            raise TypeError(f"expected Data of the augmentation, got {type(drawn).__name__}")
        return drawn


def _rows(cloud: Data, rows: torch.Tensor) -> Data:
    return Data(pos=cloud.pos[rows], instance=cloud.instance[rows], semantic=cloud.semantic[rows])


class TestClouds:
    """Clouds of an evaluation, drawn once, with their ground truth.

    Attributes:
        names: of the clouds.
        clouds: Data with at most ``points`` points.
        targets: points that nobody labelled are taken out of what is found, those of no instance count in unions.
    """

    __test__ = False  # for pytest

    def __init__(self, clouds: Sequence[Cloud], frame: Frame, classes: Sequence[int], points: int) -> None:
        self.names = [cloud.name for cloud in clouds]
        self.clouds = []
        for cloud in clouds:
            data = labelled_data(cloud, frame, classes)
            self.clouds.append(_rows(data, draw_order(len(cloud.pos), points, fingerprint(cloud))))
        self.targets = [_targets(data, max(1, len(classes))) for data in self.clouds]


def _targets(data: Data, classes: int) -> EvaluationTargets:
    """The instances of a cloud, each with the class of most of its points; those without a class are ignored."""
    index = index_instances(data.instance)
    named_classes = torch.where(data.semantic > 0, data.semantic - 1, IGNORED)
    of_instance = instance_classes(named_classes, index, classes)
    named = of_instance >= 0
    row = torch.where(named, named.cumsum(0) - 1, NO_INSTANCE)
    of = torch.cat([row, row.new_tensor([NO_INSTANCE])])[index.index]  # -1 is the last
    other = (data.instance == IGNORED) | ((index.index >= 0) & (of < 0))
    return EvaluationTargets(of, of_instance[named], other)
