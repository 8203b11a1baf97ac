"""Generated volumes of nuclei: sizes, contact within clumps, space between them, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from probemb_shapes.nuclei import GAP, RADII, nuclei_volume

SHAPE, SPACING = (24, 64, 64), (2.0, 1.0, 1.0)


def test_nuclei_have_the_sizes_and_touch_in_clumps_apart_from_others() -> None:
    image, label = nuclei_volume(np.random.default_rng(0), SHAPE, spacing=SPACING)
    assert image.dtype == np.float32
    assert label.dtype == np.int32
    count = int(label.max())
    clumps, number = ndimage.label(label > 0, np.ones((3, 3, 3)))
    assert 1 < number < count  # some touch
    boxes = ndimage.find_objects(label)
    extents = np.array([[(s.stop - s.start) * step for s, step in zip(b, SPACING, strict=True)] for b in boxes if b])
    assert extents.max() <= 2 * 1.15 * RADII[1] + max(SPACING)
    distance = ndimage.distance_transform_edt(clumps != 1, sampling=SPACING)
    assert distance[(clumps > 0) & (clumps != 1)].min() > GAP - 2 * 0.15 * RADII[1]  # radii vary by 15 %
    assert image[label > 0].mean() > 10 * abs(image[label == 0].mean())


def test_a_seed_repeats_a_volume() -> None:
    first, second = (nuclei_volume(np.random.default_rng(3), (8, 32, 32)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert nuclei_volume(np.random.default_rng(4), (8, 32, 32))[0].std() > 0


def test_what_does_not_fit() -> None:
    for shape, spacing in (((8, 8), SPACING), ((8, 8, 0), SPACING), ((8, 8, 8), (1.0, 0.0, 1.0))):
        with pytest.raises(ValueError, match="three positive numbers"):
            nuclei_volume(np.random.default_rng(0), shape, spacing=spacing)
