"""The models of `data/scan_objects`: their categories, and the side of the split on which each one is.

Models, authors and licences: `data/README.md` and `data/ATTRIBUTION.md`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from probemb_adapters.scannet.files import NYU40
from probemb_shapes.classes import Table, leaves
from probemb_shapes.rooms.surfels import Surfels, from_points

Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("train", "val")
FILE = "objects.npz"

CLASSES: Table = {
    "wall": ("wall",),
    "floor": ("floor",),
    "ceiling": ("ceiling",),
    "cabinet": ("cabinet", "kitchen cabinet", "upper cabinet", "filing cabinet"),
    "bed": ("bed",),
    "chair": ("chair", "office chair", "armchair"),
    "sofa": ("sofa",),
    "table": ("table", "coffee table"),
    "door": ("door",),
    "window": ("window",),
    "bookshelf": ("bookshelf",),
    "picture": ("picture",),
    "counter": ("counter",),
    "desk": ("desk",),
    "curtain": ("curtain",),
    "refrigerator": ("refrigerator",),
    "shower curtain": ("shower curtain",),
    "toilet": ("toilet",),
    "sink": ("sink",),
    "bathtub": ("bathtub",),
    "otherfurniture": (
        "wardrobe",
        "radiator",
        "trash can",
        "piano",
        "bench",
        "washing machine",
        "tv stand",
        "chest",
        "crate",
        "game table",
        "treadmill",
    ),
    "pillow": ("pillow",),
    "books": ("books",),
    "television": ("tv",),
    "box": ("box",),
    "nightstand": ("nightstand",),
    "lamp": ("lamp",),
    "otherprop": ("monitor", "laptop"),
}
"""ScanNet class → the raw categories of it that rooms have."""

LABELS = {raw: NYU40.index(name) for name, raw in leaves(CLASSES)}
"""Raw category → nyu40 id, the table of categories that is written beside the scenes."""

# Raw categories that tell more than the class; a room is furnished by them.
_CATEGORY = {
    **dict.fromkeys(("katorlegaz-office-chair", "ccby-armChair2"), "office chair"),
    **dict.fromkeys(
        (
            *("cc0-armchair2", "cc0-modernArmchair", "cc0-winchesterArmchair", "cc0-designChair", "ccby-leaf_chair"),
            *("ccby-armchair1", "ccby-fotel", "katorlegaz-mid-century-chair"),
        ),
        "armchair",
    ),
    "ccby-coffeeTable": "coffee table",
    "katorlegaz-filing-cabinet": "filing cabinet",
    **dict.fromkeys(
        (
            *("cc0-drawersCabinet", "cc0-lowerCabinet", "ccby-kitchenDrawersCabinet", "ccby-kitchenLowerCabinet"),
            "ccby-kitchenSmallLowerCabinet",
        ),
        "kitchen cabinet",
    ),
    **dict.fromkeys(
        (
            *("cc0-glassDoorCabinet", "cc0-smallUpperCabinet", "cc0-upperCabinet", "ccby-kitchenSmallUpperCabinet"),
            *("ccby-kitchenUpperCabinet", "ccby-kitchenGlassDoorCabinet"),
        ),
        "upper cabinet",
    ),
    **dict.fromkeys(("cc0-wardrobeWithSlidingDoors", "ccby-wardrobe", "ccby-wardrobe2"), "wardrobe"),
    **dict.fromkeys(
        (
            *("cc0-radiator1", "cc0-radiator2", "cc0-radiator", "cc0-radiator3", "ccby-bathroomRadiator"),
            "ccby-modernRadiator",
        ),
        "radiator",
    ),
    **dict.fromkeys(("cc0-dustbin", "katorlegaz-bullet-trash-can", "katorlegaz-recycling-bin"), "trash can"),
    **dict.fromkeys(("cc0-pianoAQueue", "ccby-piano"), "piano"),
    **dict.fromkeys(("cc0-bench", "cc0-pianoBench", "katorlegaz-bench"), "bench"),
    **dict.fromkeys(("cc0-poolTable", "cc0-table_football"), "game table"),
    **{"ccby-washing_machine": "washing machine", "ccby-tvStand": "tv stand", "ccby-chest": "chest"},
    **{"cc0-crate": "crate", "ccby-treadmill": "treadmill"},
}

# They are parts of a corner, and open towards it: no place along a wall suits them.
_LEFT_OUT = ("cc0-lowerCornerCabinet", "cc0-upperCornerCabinet", "cc0-showerDoor")

# Models that must be on the same side of the split. Two reasons:
# - near-duplicates: the mean distance of 512 points of one model to the 4,096 points of the other, averaged over
#   both directions, smallest over the four quarter turns about the vertical, is at most 0.03 in the unit sphere
#   (sampling alone gives about 0.02). Computed for all pairs; tests/shapes/test_rooms.py computes it again.
# - sets: models that ATTRIBUTION.md lists under one source, or as one set by one author, share parts and style.
GROUPS: dict[str, tuple[str, ...]] = {
    "flat panels": (
        *("cc0-showerDoor", "katorlegaz-screen-door", "katorlegaz-exterior-door-01", "katorlegaz-exterior-door-02"),
        *("katorlegaz-exterior-door-03", "katorlegaz-exterior-door-05", "katorlegaz-exterior-door-07"),
        *("katorlegaz-window-01", "katorlegaz-window-08"),
    ),
    "country kitchen": (
        *("ccby-chairWithCushion", "ccby-kitchenDrawersCabinet", "ccby-kitchenGlassDoorCabinet"),
        *("ccby-kitchenLowerCabinet", "ccby-kitchenSmallLowerCabinet", "ccby-kitchenSmallUpperCabinet"),
        *("ccby-kitchenUpperCabinet", "ccby-table"),
    ),
    "white kitchen": (
        *("cc0-drawersCabinet", "cc0-glassDoorCabinet", "cc0-highCabinet", "cc0-largeFridge", "cc0-lowerCabinet"),
        *("cc0-lowerCornerCabinet", "cc0-smallUpperCabinet", "cc0-upperCabinet", "cc0-upperCornerCabinet"),
    ),
    "bedroom": (
        *("cc0-bed1", "cc0-bed2", "ccby-bunkBed", "ccby-juniorBed", "ccby-lettoCloud", "ccby-simpleDesk"),
        "ccby-wardrobe",
    ),
    "bathroom": ("cc0-toiletsUnit", "cc0-washbasin"),
    "bathroom hardy": ("ccby-bath_jay_hardy", "ccby-toilets_unit_jay_hardy", "ccby-washbasin_jay_hardy"),
    "oak": ("cc0-oakChair", "cc0-oakTable"),
    "winchester": ("cc0-winchesterArmchair", "cc0-winchesterSofa"),
    "cushion chairs": ("cc0-chairWithCushion", "cc0-table", "ccby-kitchenChair"),
    "low tables": ("katorlegaz-bench", "katorlegaz-folding-table"),
    "wardrobes": ("cc0-wardrobeWithSlidingDoors", "ccby-wardrobe2"),
    "school radiators": ("cc0-radiator1", "cc0-radiator2"),
    "mota": ("ccby-cafe_set_mota_chair", "ccby-cafe_set_mota_table"),
    "tonon": ("ccby-cafe_set_tonon_chair", "ccby-cafe_set_tonon_table"),
    "nikitron": ("ccby-coffeeTable", "ccby-cornerSofa"),
    "cafe": ("katorlegaz-cafe-chair", "katorlegaz-cafe-table"),
    "mid-century": (
        *("katorlegaz-mid-century-bench-sofa", "katorlegaz-mid-century-chair", "katorlegaz-mid-century-sofa"),
    ),
}
_GROUP_OF = {member: name for name, members in GROUPS.items() for member in members}

# Chosen by hand: of each class with two groups or more some on each side, about three to one.
_VALIDATION = frozenset(
    (
        *("country kitchen", "bathroom", "wardrobes", "mota"),
        *("cc0-antiqueChair", "cc0-bed3", "cc0-bedWithTexture", "cc0-bookcase", "cc0-couch2", "cc0-cupboard"),
        *("cc0-desk", "cc0-dustbin", "cc0-modernArmchair", "cc0-pianoBench", "cc0-plasticChair", "cc0-radiator"),
        *("cc0-sofa2", "ccby-armChair2", "ccby-biurko3", "ccby-leaf_chair", "ccby-chest", "ccby-piano", "ccby-sofa3"),
        *("katorlegaz-dining-chair", "katorlegaz-fridge"),
        *("katorlegaz-futon-couch", "katorlegaz-glass-dining-table"),
    )
)


class Model(NamedTuple):
    """One model of the source.

    Attributes:
        key: `{library}-{name}`.
        label: its ScanNet class.
        category: raw category, a key of `LABELS`.
        surfels: its surface.
    """

    key: str
    label: str
    category: str
    surfels: Surfels


class Models:
    """The models of `objects.npz`; surfaces are made when they are asked for, once.

    Args:
        source: the folder of the file, or a file of the same layout.
        only: the side of the split on which all of them are, such as another library's for validation; None is the
            split of `data/scan_objects`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is unreadable, or its arrays contradict `data/README.md`.
    """

    def __init__(self, source: str | Path, *, only: str | None = None) -> None:
        source = Path(source)
        self.path, self.only = source if source.is_file() else source / FILE, only
        self._data = _read(self.path)
        library = {"BlendSwap-CC-0": "cc0", "BlendSwap-CC-BY": "ccby", "KatorLegaz": "katorlegaz"}
        names = zip(self._data["library"].tolist(), self._data["name"].tolist(), strict=True)
        self._row = {f"{library.get(a, a)}-{b}": row for row, (a, b) in enumerate(names)}
        self._made: dict[str, Model] = {}

    def keys(self, split: str, category: str) -> list[str]:
        """The models of a raw category on one side of the split, in the order of the file."""
        return [
            key
            for key in self._row
            if self._split_of(key) == split and key not in _LEFT_OUT and self.category(key) == category
        ]

    def category(self, key: str) -> str:
        """The raw category of a model."""
        return _CATEGORY.get(key, self.label(key))

    def label(self, key: str) -> str:
        """The ScanNet class of a model."""
        return str(self._data["label"][self._row[key]])

    def counts(self) -> dict[str, dict[str, int]]:
        """ScanNet class → split → models that rooms may have, the classes in the order of the file."""
        found = {str(name): dict.fromkeys(SPLITS, 0) for name in self._data["classes"]}
        for key in self._row:
            if key not in _LEFT_OUT:
                found[self.label(key)][self._split_of(key)] += 1
        return found

    def _split_of(self, key: str) -> str:
        return split_of(key) if self.only is None else self.only

    def __getitem__(self, key: str) -> Model:
        if key not in self._made:
            row = self._row[key]
            points = slice(self._data["ptr"][row], self._data["ptr"][row + 1])
            surfels = from_points(self._data["pos"][points], self._data["rgb"][points])
            self._made[key] = Model(key, self.label(key), self.category(key), surfels)
        return self._made[key]

    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def split_of(key: str) -> str:
    """The side of a model, `train` or `val`, the same for a whole group.

    >>> split_of("cc0-washbasin"), split_of("cc0-toiletsUnit"), split_of("cc0-oakChair")
    ('val', 'val', 'train')
    """
    return "val" if _GROUP_OF.get(key, key) in _VALIDATION else "train"


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: source must be the folder data/scan_objects of this project")
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
    except (BadZipFile, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable npz file ({error}): take it from the repository again") from error
    missing = [name for name in ("pos", "rgb", "ptr", "label", "name", "library", "classes") if name not in data]
    if missing:
        raise ValueError(f"{path} has no array {', '.join(missing)}: take it from the repository again")
    count, ptr = len(data["name"]), data["ptr"]
    total = int(ptr[-1]) if len(ptr) else 0
    unknown = sorted(set(data["label"].tolist()) - set(LABELS) - {"otherfurniture"})
    if (
        not (len(ptr) == count + 1 and len(data["label"]) == len(data["library"]) == count)
        or data["pos"].shape != (total, 3)
        or data["rgb"].shape != (total, 3)
        or np.diff(ptr, prepend=0).min() < 0
        or unknown
    ):
        raise ValueError(
            f"{path}: expected {count} objects of the classes of ScanNet, with ptr of {count + 1} and pos and rgb of "
            f"({total}, 3), got ptr {ptr.shape}, pos {data['pos'].shape}, rgb {data['rgb'].shape}, unknown classes "
            f"{unknown}: take it from the repository again"
        )
    return data
