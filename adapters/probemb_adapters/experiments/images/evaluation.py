"""Fitting on validation, average precision on test, and what one has without an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.experiments.images.model import Model
from probemb_adapters.images import LabelledImage
from probemb_adapters.images.pairs import Array
from probemb_lib import GaussianEmbedding, Instances, MarginInstances, label_image
from probemb_lib.clustering.fit import best_of
from probemb_lib.metrics import LabelImageAP

Output = tuple[GaussianEmbedding, Tensor]

THRESHOLDS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8)
MIN_SCORES = (0.5, 0.65, 0.75, 0.85)
DIAMETERS = (None, 20.0)  # of the usual object, pixels; None: images as they are
AFTERWARDS = ((False, None), (True, None), (True, 0.15), (True, 0.3))  # refine, and join objects so similar
MIN_PIXELS = (10, 20, 30)
SHARES = (0.2, 0.5, 1.0)  # of a small object, in the place of MIN_PIXELS; the first of equals is taken
RADII = (2, 3, 5, 8)  # pixels between peaks of the distance
BLURS = (0.5, 1.0, 2.0)  # of the distance, pixels


@dataclass(frozen=True)
class Evaluation:
    """A method on the images of a side.

    Attributes:
        name: of the method.
        metric: with an image a row.
        found: label image of each.
        fitted: what was chosen on validation.
        uncertainty: (H, W) of each, of pixels in their objects; empty for methods without an embedding.
    """

    name: str
    metric: LabelImageAP
    found: list[Array]
    fitted: dict[str, Any]
    uncertainty: Sequence[Array] = ()

    @property
    def ap(self) -> dict[str, float]:
        """AP50 to AP90 over all objects of all images, as StarDist counts them, and their mean."""
        values = self.metric.compute()["ap"].tolist()
        named = {f"AP{round(100 * t)}": v for t, v in zip(self.metric.iou_thresholds, values, strict=True)}
        return {**named, "AP": float(np.mean(values))}

    @property
    def image_ap(self) -> float:
        """The mean over the images of their AP at IoU 0.5, as Cellpose counts it."""
        return float(self.metric.compute()["mean_image_ap"][0])

    def interval(self, fields: Sequence[str], resamples: int = 1000) -> tuple[float, float]:
        """95 % interval of AP50 over fields drawn with replacement, tiles of a field together."""
        rng = np.random.default_rng(0)
        rows = [[i for i, f in enumerate(fields) if f == field] for field in sorted(set(fields))]
        values = []
        for _ in range(resamples):
            drawn = [i for k in rng.integers(len(rows), size=len(rows)) for i in rows[k]]
            values.append(self.metric.subset(drawn).compute()["ap"][0])
        low, high = np.nanpercentile(values, [2.5, 97.5])
        return float(low), float(high)


def predict_all(model: Model, images: Sequence[LabelledImage], what: str) -> list[Output]:
    """What the network gives for each image, on the CPU."""
    outputs = []
    for image in tqdm(images, desc=what, unit="image", mininterval=0.5):
        embedding, probabilities = model.predict(image.image)
        outputs.append((GaussianEmbedding(*(t.cpu() for t in embedding)), probabilities.cpu()))
    return outputs


def label_images(found: Sequence[Instances], images: Sequence[LabelledImage]) -> list[Array]:
    """The label image of what was found in each image."""
    return [
        label_image(instances, (1, *image.image.shape))[0].numpy()
        for instances, image in zip(found, images, strict=True)
    ]


def average_precision(found: Sequence[Array], images: Sequence[LabelledImage]) -> LabelImageAP:
    """Over images with labels.

    Raises:
        ValueError: an image without.
    """
    metric = LabelImageAP()
    for label, image in zip(found, images, strict=True):
        if image.label is None:
            raise ValueError(f"{image.name}: expected labels to compare with, got none")
        metric.update(label, image.label)
    return metric


def fit(
    model: Model,
    images: Sequence[LabelledImage],
    afterwards: Sequence[tuple[bool, float | None]] | None = None,
    diameters: Sequence[float | None] = DIAMETERS,
    min_pixels: Sequence[int] = MIN_PIXELS,
) -> tuple[Model, float]:
    """The model with the settings that have the highest AP50 on validation images, and that AP50.

    Of equal ones the mean AP decides, then the order of the candidates. What is found at the first diameter with the
    settings fitted there says how much to magnify for the next ones.

    Args:
        afterwards: values of refine and join to choose from; None: `AFTERWARDS`.
        diameters: to magnify to, the first of them None.
        min_pixels: of an object.
    """
    best, value = model, (-1.0, -1.0)
    for diameter in diameters:
        candidate = best.with_settings(replace(best.settings, diameter=diameter))
        candidate, of_candidate = _fit_clustering(candidate, images, afterwards or AFTERWARDS, min_pixels)
        if of_candidate > value:
            best, value = candidate, of_candidate
    return best, value[0]


def least_sizes(images: Sequence[LabelledImage]) -> tuple[int, ...]:
    """Least sizes to choose from for objects of these labels: `SHARES` of the size that 2 % of them are below.

    On images that the network finds all too easy each least size is as good; on others, noise is small.
    """
    sizes = np.concatenate([np.bincount(i.label.ravel())[1:] for i in images if i.label is not None])
    small = float(np.quantile(sizes[sizes > 0], 0.02))
    return tuple(dict.fromkeys(max(1, round(share * small)) for share in SHARES))


def _fit_clustering(
    model: Model,
    images: Sequence[LabelledImage],
    afterwards: Sequence[tuple[bool, float | None]],
    least: Sequence[int],
) -> tuple[Model, tuple[float, float]]:
    """The best settings, their AP50 and their mean AP."""
    outputs = predict_all(model, images, "validation")
    margin = model.settings.embedding == "margin"
    candidates, values, means = [], [], []
    for threshold in tqdm((model.settings.threshold,) if margin else THRESHOLDS, desc="fitting", unit="threshold"):
        of_threshold = replace(model.settings, threshold=threshold)
        proposals = [model.with_settings(of_threshold).proposals(*output, min(MIN_SCORES)) for output in outputs]
        for min_score, (refine, join) in product(MIN_SCORES, ((False, None),) if margin else afterwards):
            chosen = replace(of_threshold, min_score=min_score, refine=refine, join=join, min_pixels=1)
            finished = [
                model.with_settings(chosen).finish(found, *output)
                for found, output in zip(proposals, outputs, strict=True)
            ]
            for min_pixels in least:
                large = [found.keep(found.size >= min_pixels) for found in finished]
                ap = average_precision(label_images(large, images), images).compute()["ap"]
                values.append(float(ap[0]))
                means.append(float(ap.mean()))
                candidates.append(replace(chosen, min_pixels=min_pixels))
    value = best_of(candidates, values)[1]
    equal = [i for i, v in enumerate(values) if v == value]
    best, mean, *_ = best_of([candidates[i] for i in equal], [means[i] for i in equal])
    return model.with_settings(best), (value, mean)


def evaluate(name: str, model: Model, images: Sequence[LabelledImage]) -> Evaluation:
    """A model with its fitted settings on images with labels."""
    outputs = predict_all(model, images, name)
    instances = [model.cluster(*output) for output in outputs]
    found = label_images(instances, images)
    uncertainty = [
        objects.uncertainty(embedding).reshape(image.image.shape).numpy()
        for objects, (embedding, _), image in zip(instances, outputs, images, strict=True)
        if not isinstance(objects, MarginInstances)
    ]
    return Evaluation(name, average_precision(found, images), found, model.fitted, uncertainty)


# --- without an embedding


def connected_components(inside: NDArray[np.bool_], min_pixels: int) -> NDArray[np.int64]:
    """Connected pixels are one object, touching ones included."""
    label, _ = ndimage.label(inside)
    return without_small(label, min_pixels)


def distance_peaks(inside: NDArray[np.bool_], min_pixels: int, radius: int, blur: float) -> NDArray[np.int64]:
    """Every pixel climbs the smoothed distance to the outside; those that end on one peak are an object (watershed).

    Args:
        inside: (H, W).
        min_pixels: of an object.
        radius: a peak with a higher pixel so near goes on to that one.
        blur: standard deviation of the smoothing, in pixels.
    """
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), blur)
    distance[~inside] = -1
    up = _highest_near(distance, 1)
    peaks = up == np.arange(up.size)
    up[peaks] = _highest_near(distance, radius)[peaks]
    while not np.array_equal(up, up[up]):
        up = up[up]
    label = np.unique(np.where(inside.ravel(), up + 1, 0), return_inverse=True)[1]
    return without_small(label.reshape(inside.shape) + int(inside.all()), min_pixels)


def _highest_near(x: NDArray[np.float64], radius: int) -> NDArray[np.int64]:
    """(pixels,) the highest pixel in the square about each, itself or the first where several are."""
    index = np.arange(x.size).reshape(x.shape)
    best, at = x.copy(), index.copy()
    high, width = x.shape
    for dy, dx in product(range(-radius, radius + 1), repeat=2):
        to = np.s_[max(0, -dy) : high - max(0, dy), max(0, -dx) : width - max(0, dx)]
        of = np.s_[max(0, dy) : high - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        better = x[of] > best[to]
        best[to] = np.where(better, x[of], best[to])
        at[to] = np.where(better, index[of], at[to])
    return at.ravel()


def evaluate_baselines(model: Model, val: Sequence[LabelledImage], test: Sequence[LabelledImage]) -> list[Evaluation]:
    """Both from the foreground map of the model, their parameters fitted on validation as the model's are."""
    inside_val, inside_test = ([_inside(model, image) for image in side] for side in (val, test))
    components = [{"min_pixels": n} for n in MIN_PIXELS]
    peaks = [{"min_pixels": n, "radius": r, "blur": b} for n, r, b in product(MIN_PIXELS, RADII, BLURS)]
    methods: list[tuple[str, Callable[..., Array], list[dict[str, Any]]]] = [
        ("foreground, connected components", connected_components, components),
        ("foreground, peaks of the distance", distance_peaks, peaks),
    ]
    evaluations = []
    for name, method, grid in methods:
        values = [
            float(average_precision([method(i, **chosen) for i in inside_val], val).compute()["ap"][0])
            for chosen in tqdm(grid, desc=name, unit="setting")
        ]
        chosen = best_of(grid, values)[0]
        found = [method(i, **chosen) for i in inside_test]
        evaluations.append(Evaluation(name, average_precision(found, test), found, chosen))
    return evaluations


def _inside(model: Model, image: LabelledImage) -> NDArray[np.bool_]:
    probabilities = model.predict(image.image)[1]
    return (probabilities[:, 0] == 0).reshape(image.image.shape).cpu().numpy()


def without_small(label: Array, min_pixels: int) -> NDArray[np.int64]:
    size = np.bincount(label.ravel())
    keep = size >= min_pixels
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[label]
