"""ScanNet v2 for torch-geometric: scenes with instances, and the ground truth of its evaluation.

What is an instance here: an annotated object of the 18 classes of ScanNet's instance benchmark. Wall and floor have a
class but no instance. They are the background, the class of column 0, whose points ``greedy_cluster`` leaves out.

The files are described in :mod:`probemb_adapters.scannet.files`, augmentation is in
:mod:`probemb_adapters.scannet.augment`, results for the benchmark in :mod:`probemb_adapters.scannet.submission`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from probemb_adapters.files import missing_extra
from probemb_adapters.scannet.files import NYU40, ScanNetScene, read_label_map, read_scene, read_split, scene_paths
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.metrics.scannet import CLASS_IDS

try:
    from torch_geometric.data import Data
except ImportError as error:
    raise missing_extra("ScanNet's scenes need torch-geometric", "scannet", error) from error

INSTANCE_IDS = CLASS_IDS
"""nyu40 ids of the 18 classes of the instance benchmark."""

INSTANCE_CLASSES = tuple(NYU40[i] for i in INSTANCE_IDS)
"""Their names; class c of ``semantic`` is ``INSTANCE_CLASSES[c - 1]``."""

STUFF_IDS = (1, 2)
"""nyu40 ids of wall and floor, which have a class but no instances."""

SEMANTIC_IDS = STUFF_IDS + INSTANCE_IDS
"""nyu40 ids of the 20 classes of the semantic benchmark."""

MAX_OBJECTS = 999
"""As many instances fit into label · 1000 + instance."""


class ScanNetScenes(Dataset[Data]):
    """The scenes of a split, read from the published files; nothing is cached on disk.

    An item is a `torch_geometric.data.Data` of N = V points, the vertices of the mesh in its order::

        pos           (N, 3) float32  metres, axis-aligned, z up
        rgb           (N, 3) uint8    as in the file; augmentation leaves it alone
        x             (N, 3) float32  the colours as features: rgb / 127.5 − 1, in −1 … 1
        instance      (N,) int64      0 … G−1; −1 outside every instance; −100 unannotated
        semantic      (N,) int64      column of the score: 0 background (wall, floor), 1 … 18; −100 any other
        label         (N,) int64      nyu40 id 1 … 40, 0 unannotated
        vertex        (N,) int64      row of the vertex in the mesh
        num_vertices  int             V, which a crop does not change
        scene_id      str             such as scene0000_00

    Three kinds of points are no instance. Wall and floor are background, instance −1 and semantic 0. Objects of other
    classes, such as lamps or ceilings, are known to be outside every instance, −1, but the benchmark does not score
    what is found on them, so they teach no class: semantic −100. What nobody annotated is −100 in both.
    For the 20 classes of the semantic benchmark take ``class_index(data.label)``.

    Scans without annotation have no ``instance``, ``semantic`` and ``label``.

    Instances count in the order of `segGroups`. Files are opened at each access and closed again, so the data set can
    be forked and pickled to workers.

    Args:
        root: the folder that holds `scans`, the lists of scenes and the table of categories.
        split: `train`, `val` or `test`, or any other that has a list `scannetv2_{split}.txt`.
        transform: called on each item, for example `scannet.augment.scene_augmentation()`.
        annotated: read the annotation; by default for every split but `test`.
        axis_align: rotate and shift the positions by the scene's `axisAlignment`.

    Attributes:
        classes: the 18 names; class c of ``semantic`` is ``classes[c - 1]``.
        scene_ids: in the order of the items.

    Raises:
        FileNotFoundError: the list of the split, the table of categories, or a file of a scene is missing.
        ValueError: a file is damaged or contradicts another; the message names the scene and the file.
        IndexError: no such item.
    """

    classes = INSTANCE_CLASSES

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        transform: Callable[[Data], Data] | None = None,
        annotated: bool | None = None,
        axis_align: bool = True,
    ) -> None:
        self.root = Path(root)
        self.scene_ids = read_split(root, split)
        self.transform = transform
        self.axis_align = axis_align
        annotated = split != "test" if annotated is None else annotated
        self._label_map = read_label_map(root) if annotated else None
        _check_files(self.root, self.scene_ids, annotated)

    @property
    def num_classes(self) -> int:
        """Columns of the score: the 18 classes and column 0, the background."""
        return len(self.classes) + 1

    def __len__(self) -> int:
        return len(self.scene_ids)

    def __getitem__(self, index: int) -> Data:
        data = scene_data(self.read(index))
        return data if self.transform is None else self.transform(data)

    def read(self, index: int) -> ScanNetScene:
        """A scene as it lies in its files, no transform.

        Raises:
            IndexError: no such scene.
            FileNotFoundError, ValueError: as the data set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of a split of {len(self)}")
        return read_scene(self.root, self.scene_ids[index], self._label_map, axis_align=self.axis_align)


def scene_data(scene: ScanNetScene) -> Data:
    """The item of a scene, see :class:`ScanNetScenes`."""
    data = Data(
        pos=torch.from_numpy(scene.pos),
        rgb=torch.from_numpy(scene.rgb),
        x=torch.from_numpy(scene.rgb) / 127.5 - 1,
        vertex=torch.arange(len(scene.pos)),
        num_vertices=len(scene.pos),
        scene_id=scene.scene_id,
    )
    if scene.label is not None and scene.object is not None:
        label = torch.from_numpy(scene.label)
        semantic = class_index(label, INSTANCE_IDS)
        semantic += (semantic >= 0).long()  # column 0 is the background
        semantic[class_index(label, STUFF_IDS) >= 0] = 0
        instance = torch.full_like(label, NO_INSTANCE).masked_fill(label == 0, IGNORED)
        inside = semantic > 0
        instance[inside] = torch.from_numpy(scene.object)[inside].unique(return_inverse=True)[1]
        data.instance, data.semantic, data.label = instance, semantic, label
    return data


def class_index(label: Tensor, ids: Sequence[int] = SEMANTIC_IDS) -> Tensor:
    """The position of each nyu40 id in ``ids``, −100 where it is not there; of the same shape, int64.

    >>> class_index(torch.tensor([0, 1, 2, 3, 13, 39]))
    tensor([-100,    0,    1,    2, -100,   19])
    """
    index = torch.full((len(NYU40),), IGNORED, device=label.device)
    index[list(ids)] = torch.arange(len(ids), device=label.device)
    return index[label]


def evaluation_target(data: Data) -> Tensor:
    """The ground truth of an item for `ScanNetAP`: label · 1000 + instance of each vertex, in the order of the mesh.

    Labels are nyu40 ids and instances count from 1; instance 0 is a vertex outside every instance. Of such vertices the
    metric asks only that their label is not one of the 18.

    Args:
        data: an annotated item with all vertices, in any order.

    Returns:
        (V,) int64.

    Raises:
        ValueError: the scene has no annotation, the item not all of its vertices, or more than 999 instances.

    >>> data = Data(instance=torch.tensor([1, 0, -1, -100]), label=torch.tensor([5, 5, 1, 0]))
    >>> data.vertex, data.num_vertices, data.scene_id = torch.tensor([3, 0, 1, 2]), 4, "scene0000_00"
    >>> evaluation_target(data)
    tensor([5001, 1000,    0, 5002])
    """
    if "instance" not in data or "label" not in data:
        raise ValueError(f"{data.scene_id} has no annotation: test scans are evaluated by ScanNet's server")
    check_whole(data)
    if len(data.instance) and data.instance.max() >= MAX_OBJECTS:
        raise ValueError(
            f"{data.scene_id}: expected at most {MAX_OBJECTS} instances, as label · 1000 + instance holds, got ids up "
            f"to {int(data.instance.max())}"
        )
    target = torch.empty_like(data.label)
    target[data.vertex] = data.label * 1000 + (data.instance + 1).clamp(min=0)
    return target


def check_whole(data: Data) -> None:
    """Raises a ValueError that names the scene unless an item has every vertex of its mesh once."""
    if not torch.equal(data.vertex.sort().values, torch.arange(int(data.num_vertices), device=data.vertex.device)):
        raise ValueError(
            f"{data.scene_id}: expected each of the {int(data.num_vertices)} vertices once, got {len(data.vertex)} "
            "points: ScanNet evaluates every vertex of the mesh, so read the scene without cropping and carry results "
            "on fewer points, such as voxels, to its vertices"
        )


def _check_files(root: Path, scene_ids: Sequence[str], annotated: bool) -> None:
    """Whether the files are there; none is opened."""
    for scene_id in scene_ids:
        paths = scene_paths(root, scene_id)
        needed = [paths.mesh, paths.segments, paths.aggregation] if annotated else [paths.mesh]
        missing = [path for path in needed if not path.is_file()]
        if missing:
            hint = "" if not annotated or missing[0] == paths.mesh else "; without annotation, pass annotated=False"
            raise FileNotFoundError(
                f"{scene_id}: {missing[0]} is missing: root must be the folder that holds ScanNet's scans, with each "
                f"scene of the split{hint}"
            )
