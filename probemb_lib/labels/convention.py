"""What the values of a host's label arrays mean, and the way there and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib.labels.values import IGNORED, NO_INSTANCE, as_int64, check_meaning, isin, listed

TUPLES = (
    "no_instance",
    "ignored_instance",
    "ignored_semantic",
    "stuff_classes",
    "thing_classes",
    "background_classes",
)


@dataclass(frozen=True)
class LabelConvention:
    """What the values of a host's label arrays mean. The defaults are the convention of this library.

    Attributes:
        no_instance: values of ``instance`` on points outside every instance.
        ignored_instance: values of ``instance`` on points to ignore.
        ignored_semantic: values of ``semantic`` on points to ignore.
        stuff_classes: classes without instances, such as wall and floor: their points become −1 whatever
            their id. Class numbers are those of the host, before conversion, here and below.
        thing_classes: classes whose points all belong to instances: those without one (a crowd drawn as one
            region) become −100, where they would else count as background.
        ignored_semantic_ignores_instance: whether points with an ignored class are ignored as instances too.
        num_classes: classes are 0 … num_classes − 1, and others are refused: raw ids of the data set where train ids
            were meant. None: not checked.
        background_classes: classes that become column 0, the background; they are stuff. A host may keep its
            background at or above ``num_classes``.
        class_shift: what is added to all other classes: 1 where the host's class 0 has instances, so that column 0 is
            free; −1 where its classes 0 and 1 are the background.

    Raises:
        TypeError: a value is not an int.
        ValueError: a value has two meanings, ``num_classes`` is not positive, or a class would be shifted to a column
            that does not exist or is the background's.

    >>> from probemb_lib.labels import POINTCEPT
    >>> from dataclasses import replace
    >>> scannet = replace(POINTCEPT, num_classes=20, background_classes=(0, 1), class_shift=-1)  # wall, floor
    >>> instance, semantic = scannet.convert(torch.tensor([-1, 0, 1, 1]), torch.tensor([-1, 0, 2, 2]))
    >>> instance, semantic
    (tensor([-1, -1,  1,  1]), tensor([-100,    0,    1,    1]))
    >>> scannet.num_columns, scannet.host_classes(torch.tensor([1, 18]))
    (19, tensor([ 2, 19]))
    """

    no_instance: tuple[int, ...] = (NO_INSTANCE,)
    ignored_instance: tuple[int, ...] = (IGNORED,)
    ignored_semantic: tuple[int, ...] = (IGNORED,)
    stuff_classes: tuple[int, ...] = ()
    thing_classes: tuple[int, ...] = ()
    ignored_semantic_ignores_instance: bool = False
    num_classes: int | None = None
    background_classes: tuple[int, ...] = ()
    class_shift: int = 0

    def __post_init__(self) -> None:
        for name in TUPLES:
            values = getattr(self, name)
            if not isinstance(values, tuple) or any(type(value) is not int for value in values):
                raise TypeError(f"{name}: expected a tuple of int, got {values!r}")
        for one, other in (
            ("no_instance", "ignored_instance"),
            ("stuff_classes", "thing_classes"),
            ("stuff_classes", "ignored_semantic"),
            ("thing_classes", "ignored_semantic"),
            ("background_classes", "thing_classes"),
            ("background_classes", "ignored_semantic"),
        ):
            both = set(getattr(self, one)) & set(getattr(self, other))
            if both:
                raise ValueError(f"expected one meaning for a value, got {sorted(both)} in {one} and {other}")
        if self.num_classes is not None and type(self.num_classes) is not int:
            raise TypeError(f"num_classes: expected an int or None, got {self.num_classes!r}")
        if type(self.class_shift) is not int:
            raise TypeError(f"class_shift: expected an int, got {self.class_shift!r}")
        if self.num_classes is None:
            return
        if self.num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {self.num_classes}")
        lost = [c for c in self._shifted() if c + self.class_shift < self._first_column]
        if lost:
            raise ValueError(
                f"class_shift: expected one that brings the classes to {self._first_column} and above, as 0 is the "
                f"background's where background_classes are named; got {self.class_shift}, which brings class "
                f"{listed(lost)} to {listed(c + self.class_shift for c in lost)}"
            )

    @property
    def num_columns(self) -> int:
        """The columns of the scores that these labels need, ``num_classes`` of a head: column 0 and those above it.

        Raises:
            ValueError: ``num_classes`` is None.
        """
        if self.num_classes is None:
            raise ValueError("num_columns: expected a convention with num_classes; set it by dataclasses.replace")
        return max((c + self.class_shift for c in self._shifted()), default=0) + 1

    def convert(
        self, instance: Tensor | NDArray[Any], semantic: Tensor | NDArray[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The host's labels in the convention of this library; ids stay as they are.

        A point is ignored where any rule says so, else it is outside every instance where any rule says so.

        Args:
            instance: any shape, any integer type, torch or numpy.
            semantic: likewise, of the same shape. ``None`` where the host has objects of one class only, as
                label images have: then 1 on instances, 0 outside, −100 where the instance is ignored.

        Returns:
            ``instance`` and ``semantic``, new int64 tensors on the device of the input.

        Warns:
            UserWarning: points of an ignored class at or above ``num_classes`` have instance ids, and would train as
                instances without a class. Wall and floor may be among them.

        Raises:
            TypeError: the labels are not integers; float and bool labels are to be cast by who knows them.
            ValueError: the shapes differ; or a value is negative and has no meaning here; or a class is beyond
                ``num_classes``, or shifted to a column that does not exist or is the background's; or a value is what
                a narrow type made of one of this convention's values (255 for −1 in uint8): −1 and the
                instance 255 cannot be told apart any more, so read the labels as int64 from the start.

        >>> import numpy as np
        >>> from probemb_lib.labels import EMBEDSEG
        >>> EMBEDSEG.convert(np.array([[0, 7], [7, 9]], dtype=np.uint8))
        (tensor([[-1,  7],
                [ 7,  9]]), tensor([[0, 1],
                [1, 1]]))
        """
        ids = as_int64(instance, "instance", self.no_instance + self.ignored_instance)
        none, ignored = isin(ids, self.no_instance), isin(ids, self.ignored_instance)
        check_meaning(ids, none | ignored, "instance")
        if semantic is None:
            class_of = torch.where(ignored, IGNORED, (~none).long())
            return ids.masked_fill(none, NO_INSTANCE).masked_fill(ignored, IGNORED), class_of

        class_of = as_int64(semantic, "semantic", self.ignored_semantic)
        if class_of.shape != ids.shape:
            raise ValueError(
                f"semantic: expected the shape of instance, {tuple(ids.shape)}, got {tuple(class_of.shape)}"
            )
        unclassed, background = isin(class_of, self.ignored_semantic), isin(class_of, self.background_classes)
        check_meaning(class_of, unclassed, "semantic")
        shifted = self._columns_of(class_of, unclassed, background)
        ignored = ignored | (none & isin(class_of, self.thing_classes))
        if self.ignored_semantic_ignores_instance:
            ignored = ignored | unclassed
        none = none | isin(class_of, self.stuff_classes) | background
        self._warn_of_classless(class_of, unclassed & ~none & ~ignored)
        return ids.masked_fill(none, NO_INSTANCE).masked_fill(ignored, IGNORED), shifted

    def host_classes(self, semantic: Tensor) -> Tensor:
        """The host's classes of predictions, the inverse of what :meth:`convert` does to classes.

        host = c − ``class_shift``, and the first of ``background_classes`` for c = 0.

        Args:
            semantic: any shape, columns ≥ 0, such as ``Instances.semantic``.

        Raises:
            TypeError: not an integer type.
            ValueError: a column is negative, or none of the host's classes.
        """
        column = as_int64(semantic, "semantic", ())
        check_meaning(column, torch.zeros_like(column, dtype=torch.bool), "semantic")
        host = column - self.class_shift
        if self.background_classes:
            host = torch.where(column == 0, self.background_classes[0], host)
        beyond = (host < 0) if self.num_classes is None else (host < 0) | (column >= self.num_columns)
        if beyond.any():
            raise ValueError(
                f"semantic: expected columns of the host's classes, got {listed(sorted(set(column[beyond].tolist())))}"
                f" with class_shift {self.class_shift} and num_classes {self.num_classes}"
            )
        return host

    @property
    def _first_column(self) -> int:
        return 1 if self.background_classes else 0

    def _shifted(self) -> list[int]:
        others = {*self.background_classes, *self.ignored_semantic}
        return [c for c in range(self.num_classes or 0) if c not in others]

    def _columns_of(self, class_of: Tensor, unclassed: Tensor, background: Tensor) -> Tensor:
        if self.num_classes is not None:
            beyond = class_of[(class_of >= self.num_classes) & ~unclassed & ~background]
            if beyond.numel():
                meanings = f"{listed(self.ignored_semantic)} (ignored)"
                if self.background_classes:
                    meanings += f" or {listed(self.background_classes)} (background)"
                raise ValueError(
                    f"semantic: expected classes 0 .. {self.num_classes - 1} or {meanings}, got "
                    f"{listed(sorted(set(beyond.tolist()))[:5])}; are these raw ids of the data set, "
                    "before its mapping to train ids?"
                )
        column = (class_of + self.class_shift).masked_fill(background, 0)
        lost = (column < self._first_column) & ~unclassed & ~background
        if lost.any():
            raise ValueError(
                f"semantic: expected classes that class_shift {self.class_shift} brings to {self._first_column} and "
                f"above, got {listed(sorted(set(class_of[lost].tolist()))[:5])}; name them in background_classes or "
                "ignored_semantic"
            )
        return column.masked_fill(unclassed, IGNORED)

    def _warn_of_classless(self, class_of: Tensor, kept: Tensor) -> None:
        if self.num_classes is None or not kept.any():
            return
        points = int((kept & (class_of >= self.num_classes)).sum())
        if points:
            warnings.warn(
                f"{points} points of a class at or above num_classes, {self.num_classes}, have instance ids and train "
                "as instances without a class. Where walls and floors are among them, as in mmdetection3d's instance "
                "set of ScanNet, use mmdetection3d_instances; ignored_semantic_ignores_instance=True leaves them out",
                stacklevel=3,
            )
