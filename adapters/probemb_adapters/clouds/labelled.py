"""Labelled clouds of a folder, and their classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from probemb_adapters.clouds.cloud import Cloud
from probemb_adapters.clouds.read import read_clouds


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
