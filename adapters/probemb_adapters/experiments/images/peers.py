"""EmbedSeg, StarDist, Cellpose and InstanSeg, each trained from scratch for a time and fitted on validation.

None of them is a dependency: a function imports its package when it is called, and `ImportError` says what is missing.
Networks, losses, optimizers and the way from outputs to objects are the packages' own. EmbedSeg and InstanSeg train on
the same crops as the networks here (:class:`AugmentedCrops`), as their own loaders read files of theirs; StarDist and
Cellpose bring their own sampling and augmentation.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from probemb_adapters.experiments.images.evaluation import MIN_PIXELS, average_precision, without_small
from probemb_adapters.experiments.images.training import AugmentedCrops, Crops, collate
from probemb_adapters.images import LabelledImage, normalize
from probemb_adapters.images.pairs import Array
from probemb_lib.clustering.fit import best_of

Segmenter = Callable[[LabelledImage], Array]
Image = NDArray[np.float32]


class Budget:
    """Processor time of this process, all its threads, from :meth:`begin` on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, 0
        self.begin()

    def begin(self) -> None:
        """Now, when packages are imported and data are prepared."""
        self.start = time.process_time()

    @property
    def spent(self) -> float:
        """The share that is used up."""
        return (time.process_time() - self.start) / self.seconds


def seed_all(seed: int) -> None:
    """Every generator of random numbers that one of the packages uses."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # that of the packages
    torch.manual_seed(seed)


def train_for(
    budget: Budget,
    network: nn.Module,
    images: Sequence[LabelledImage],
    losses: Callable[[nn.Module, Crops], Tensor],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[float], float],
    *,
    size: int = 128,
    batch: int = 8,
    max_norm: float = 5.0,
) -> None:
    """Steps until the budget is spent; the learning rate is a function of the share that is."""
    crops = _batches(AugmentedCrops(images, size, (8.0, 48.0)), batch)
    network.train()
    budget.begin()
    while (share := budget.spent) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(share)
        loss = losses(network, next(crops))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
        optimizer.step()
        budget.steps += 1
    network.eval()


def _batches(data: AugmentedCrops, batch: int) -> Iterator[Crops]:
    while True:
        for rows in torch.randperm(len(data)).split(batch):
            yield collate([data[int(row)] for row in rows])


def pick(
    candidates: Sequence[dict[str, Any]], images: Sequence[LabelledImage], found: Callable[..., Array]
) -> dict[str, Any]:
    """The candidate with the highest AP50 on validation; ``found(image, **candidate)`` is a label image."""
    values = [float(average_precision([found(i, **c) for i in images], images).compute()["ap"][0]) for c in candidates]
    return best_of(candidates, values)[0]


def embedseg(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: Budget) -> Segmenter:
    """Branched ERFNet, spatial embedding loss with medoids, Adam at 5e-4, its clustering without test-time views."""
    from EmbedSeg.criterions import get_loss, my_loss
    from EmbedSeg.criterions.lovasz_losses import lovasz_hinge
    from EmbedSeg.models import get_model
    from EmbedSeg.utils.generate_crops import generate_center_image
    from EmbedSeg.utils.utils import Cluster

    grid = {"grid_y": 1024, "grid_x": 1024, "pixel_y": 1, "pixel_x": 1}
    network = get_model("branched_erfnet", {"num_classes": [4, 1], "input_channels": 1})
    network.init_output(2)
    # It subtracts masks, which torch no longer does for bool.
    my_loss.lovasz_hinge = lambda logits, mask: lovasz_hinge(logits, mask.float())
    options = {"n_sigma": 2, "foreground_weight": 10}
    criterion = get_loss(grid_z=None, pixel_z=None, one_hot=False, loss_opts=options, **grid)
    weights = {"w_inst": 1, "w_var": 10, "w_seed": 1}

    def losses(network: nn.Module, crops: Crops) -> Tensor:
        centers = [
            generate_center_image(a, "approximate-medoid", np.unique(a[a > 0]), False) for a in crops.label.numpy()
        ]
        label = crops.label.short()
        center = torch.from_numpy(np.stack(centers))
        loss: Tensor = criterion(network(crops.image), label, (label > 0).short(), center, **weights).mean()
        return loss

    optimizer = torch.optim.Adam(network.parameters(), 5e-4, weight_decay=1e-4)
    train_for(budget, network, train, losses, optimizer, lambda t: 5e-4 * (1 - t) ** 0.9)

    with _cuda_means_here():
        cluster = Cluster(**grid)

    @torch.no_grad()
    def found(image: LabelledImage, seed_thresh: float = 0.9, min_object_size: int = 36) -> Array:
        output = _padded(network, normalize(image.image), 8)
        with _cuda_means_here():
            label, _ = cluster.cluster(
                output,
                n_sigma=2,
                seed_thresh=seed_thresh,
                min_mask_sum=0,
                min_unclustered_sum=0,
                min_object_size=min_object_size,
            )
        inside: Array = label.numpy()[: image.image.shape[0], : image.image.shape[1]].astype(np.int64)
        return inside

    grid_of_settings = [{"seed_thresh": s, "min_object_size": n} for s in (0.5, 0.7, 0.9) for n in (10, 36)]
    chosen = pick(grid_of_settings, val, found)
    return lambda image: found(image, **chosen)


def instanseg(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: Budget) -> Segmenter:
    """Its U-Net and its loss, half of the time with the losses of its warm start and half with its final ones."""
    from instanseg.utils.loss.instanseg_loss import InstanSeg
    from instanseg.utils.models.InstanSeg_UNet import InstanSeg_UNet

    method = InstanSeg(
        binary_loss_fn_str="dice_loss", seed_loss_fn="binary_xloss", device="cpu", n_sigma=2, cells_and_nuclei=False,
        window_size=64,
    )  # fmt: skip
    network = InstanSeg_UNet(in_channels=1, layers=np.array([256, 128, 64, 32]), out_channels=[[2, 2, 1]], norm="BATCH")
    network = method.initialize_pixel_classifier(network, MLP_width=5)
    final = False

    def losses(network: nn.Module, crops: Crops) -> Tensor:
        nonlocal final
        if budget.spent > 0.5 and not final:
            final = True
            method.update_seed_loss("l1_distance")
            method.update_binary_loss("lovasz_hinge")
        loss: Tensor = method.forward(network(crops.image), crops.label[:, None]).mean()
        return loss

    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    train_for(budget, network, train, losses, optimizer, lambda t: 1e-3, max_norm=20.0)

    @torch.no_grad()
    def found(image: LabelledImage, seed_threshold: float = 0.5, min_size: int = 10) -> Array:
        output = _padded(network, normalize(image.image), 16)
        label = method.postprocessing(output, seed_threshold=seed_threshold, min_size=min_size, window_size=32)
        label = label.squeeze().numpy().astype(np.int64)
        return label[: image.image.shape[0], : image.image.shape[1]]  # type: ignore[no-any-return]

    chosen = pick([{"seed_threshold": s, "min_size": n} for s in (0.3, 0.5, 0.7) for n in (10, 30)], val, found)
    return lambda image: found(image, **chosen)


def stardist(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: Budget) -> Segmenter:
    """Its 2-D network on a grid of 2 pixels as in its own example, patches of 128, thresholds by its own optimizer.

    Needs the older keras: TF_USE_LEGACY_KERAS=1 before anything imports tensorflow.
    """
    import tempfile

    import tensorflow as tf
    from stardist.models import Config2D, StarDist2D

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.random.set_seed(int(torch.initial_seed()) % 2**31)

    rng = np.random.default_rng(int(torch.initial_seed()))

    def augment(x: Image, y: Array) -> tuple[Image, Array]:
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        x, y = np.rot90(x, turns), np.rot90(y, turns)
        x, y = (x[::-1], y[::-1]) if flip else (x, y)
        return np.float32(rng.uniform(0.6, 2)) * x + np.float32(rng.uniform(-0.2, 0.2)), y

    class Stop(tf.keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: object = None) -> None:
            budget.begin()

        def on_batch_end(self, batch: int, logs: object = None) -> None:
            budget.steps += 1
            if budget.spent >= 1:
                self.model.stop_training = True

    config = Config2D(
        n_rays=32, grid=(2, 2), n_channel_in=1, train_patch_size=(128, 128), train_batch_size=8,
        train_epochs=1000, train_steps_per_epoch=100, train_tensorboard=False,
    )  # fmt: skip
    sides = [([normalize(i.image) for i in side], _labels(side)) for side in (train, val)]
    with tempfile.TemporaryDirectory() as folder:
        model = StarDist2D(config, name="nuclei", basedir=folder)
        model.prepare_for_training()
        model.callbacks.append(Stop())
        few = ([x[:128, :128] for x in sides[1][0][:8]], [y[:128, :128] for y in sides[1][1][:8]])
        model.train(*sides[0], validation_data=few, augmenter=augment)
        model.optimize_thresholds(*sides[1])

    def found(image: LabelledImage) -> Array:
        label, _ = model.predict_instances(normalize(image.image))
        return label.astype(np.int64)  # type: ignore[no-any-return]

    chosen = pick(
        [{"min_pixels": n} for n in (1, *MIN_PIXELS)], val, lambda i, min_pixels: without_small(found(i), min_pixels)
    )
    return lambda image: without_small(found(image), chosen["min_pixels"])


def cellpose(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: Budget) -> Segmenter:
    """Its U-Net of version 3 from random weights, patches of 128, at the scale of the images.

    Its rescaling to one diameter needs a second model, trained on the first, for images without labels.
    """
    import tempfile

    from cellpose.dynamics import labels_to_flows
    from cellpose.models import CellposeModel
    from cellpose.train import train_seg

    model = CellposeModel(gpu=False, pretrained_model=None, model_type=None, diam_mean=17.0)
    images, labels = [normalize(i.image) for i in train], labels_to_flows(_labels(train), device=model.device)
    budget.begin()
    options: dict[str, Any] = {
        "train_data": images, "train_labels": labels, "channels": [0, 0], "normalize": False, "rescale": False,
        "batch_size": 8, "bsize": 128, "min_train_masks": 1,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        # Its schedule needs the number of epochs: the time of one short one says how many there are.
        before = budget.spent
        train_seg(model.net, **options, save_path=folder, n_epochs=1, nimg_per_epoch=64)
        epoch = (budget.spent - before) * len(images) / 64
        epochs = max(1, int((1 - budget.spent) / epoch))
        train_seg(model.net, **options, save_path=folder, n_epochs=epochs, learning_rate=0.005)
    budget.steps = epochs * -(-len(images) // 8)

    def found(image: LabelledImage, cellprob_threshold: float = 0.0, min_size: int = 15) -> Array:
        label = model.eval(
            normalize(image.image), channels=[0, 0], normalize=False, rescale=1.0, diameter=None,
            cellprob_threshold=cellprob_threshold, min_size=min_size,
        )[0]  # fmt: skip
        return label.astype(np.int64)  # type: ignore[no-any-return]

    chosen = pick([{"cellprob_threshold": c} for c in (-1.0, 0.0, 1.0)], val, found)
    return lambda image: found(image, **chosen)


@contextlib.contextmanager
def _cuda_means_here() -> Iterator[None]:
    """EmbedSeg's clustering calls .cuda() without asking for one: let it stay where it is."""
    own = torch.Tensor.cuda
    torch.Tensor.cuda = _itself  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.cuda = own  # type: ignore[method-assign]


def _itself(x: Tensor) -> Tensor:
    return x


def _labels(images: Sequence[LabelledImage]) -> list[NDArray[np.int32]]:
    return [image.label.astype(np.int32) for image in images if image.label is not None]


def _padded(network: nn.Module, image: Image, factor: int) -> Tensor:
    """(C, H, W) of an image that is mirrored to multiples of ``factor``."""
    bottom, right = (-n % factor for n in image.shape)
    output: Tensor = network(F.pad(torch.from_numpy(image)[None, None], (0, right, 0, bottom), "reflect"))[0]
    return output
