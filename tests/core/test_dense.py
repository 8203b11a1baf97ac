"""Images and volumes: the head against the packed form, targets, and the way back to label images and tables."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from probemb_lib import (
    CenterAwareLoss,
    DenseHead,
    DenseOutput,
    DeterministicHead,
    GaussianEmbedding,
    HeadOutput,
    Instances,
    LearnableMarginHead,
    LearnableMarginLoss,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    SeedMSELoss,
    cluster_tiles,
    dense_targets,
    greedy_cluster,
    label_image,
    margin_cluster,
    object_csv,
    object_table,
    window_predictor,
)
from probemb_lib.convert import grid_positions, pack_dense
from probemb_lib.labels import PASCAL_VOC, STARDIST, LabelConvention
from probemb_lib.metrics import match_label_images


class Meta(Tensor):
    """A tensor that carries something, as MONAI's MetaTensor; it counts what is computed on it."""

    computed = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.computed += 1
        return super().__torch_function__(func, types, args, kwargs or {})


def disks(shape: tuple[int, ...], centers: list[tuple[int, ...]], radius: float) -> Tensor:
    """A label image (1, …) with one disk or ball a centre, numbered from 1."""
    index = grid_positions(shape)
    image = torch.zeros(len(index), dtype=torch.int64)
    for number, center in enumerate(centers, 1):
        image[(index - torch.tensor(center)).norm(dim=1) <= radius] = number
    return image.reshape(1, *shape)


# --- the head


@pytest.mark.parametrize(
    ("layout", "shape", "spacing"),
    [("BCHW", (2, 5, 4, 6), 0.5), ("BCHW", (1, 5, 3, 2), (2.0, 0.5)), ("BCZYX", (2, 5, 3, 4, 2), (2.0, 0.5, 0.25))],
)
@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_is_the_head_on_the_packed_form(layout, shape, spacing, kind) -> None:
    axes = len(shape) - 2
    inner = kind(5, num_classes=3, dim=axes, hidden=(8,)).eval()
    features = torch.randn(shape)
    output = DenseHead(inner, layout, spacing=spacing)(features)

    packed, batch = pack_dense(features, layout)
    positions = grid_positions(shape[2:], batch_size=shape[0], spacing=spacing)
    expected = inner(packed, positions, batch)
    assert output.shape == (shape[0], *shape[2:])
    torch.testing.assert_close(output.batch, batch, rtol=0, atol=0)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=0, atol=0)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(output.probabilities, expected.probabilities, rtol=0, atol=0)


def test_homoscedastic_means_over_each_image() -> None:
    head = DenseHead.probabilistic(3, num_classes=2, offset_scale=2.0, heteroscedastic=False).eval()
    std = head(torch.randn(2, 3, 4, 4)).embedding.std
    assert len(std.unique(dim=0)) == 2


def test_probabilistic_says_what_it_passes_on() -> None:
    head = DenseHead.probabilistic(
        6,
        num_classes=3,
        layout="BCZYX",
        offset_scale=4.0,
        initial_std=0.5,
        spacing=(2.0, 0.5, 0.5),
        anisotropic=False,
        heteroscedastic=False,
        hidden=(),
    )
    inner = head.head
    assert isinstance(inner, ProbabilisticHead)
    assert (inner.in_channels, inner.num_classes, inner.dim, inner.hidden) == (6, 3, 3, ())
    assert (inner.offset_scale, inner.initial_std) == (4.0, 0.5)
    assert (inner.anisotropic, inner.heteroscedastic) == (False, False)
    assert repr(head).startswith("DenseHead(\n  layout='BCZYX', spacing=(2.0, 0.5, 0.5)")
    assert DenseHead.probabilistic(6, 2, offset_scale=1.0).head.hidden == (32,)


def test_state_is_that_of_the_head() -> None:
    """Wrapping adds a prefix and nothing else, so that a head trained on images serves points and the other way."""
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0)
    inner = ProbabilisticHead(4, num_classes=2, dim=2, hidden=(32,))
    assert list(head.state_dict()) == [f"head.{name}" for name in inner.state_dict()]


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), torch.tensor([0.5, 0.5]), np.array([0.5, 0.5])])
def test_spacing_as_readers_of_images_give_it(number) -> None:
    """A header's numbers are numpy's; an integer is one too."""
    head = ProbabilisticHead(4, 2, dim=2)
    assert DenseHead(head, spacing=number).spacing == (0.5, 0.5)
    torch.testing.assert_close(grid_positions((2, 3), spacing=number), grid_positions((2, 3), spacing=0.5))
    assert DenseHead(head, spacing=np.int64(2)).spacing == (2.0, 2.0)
    with pytest.raises(ValueError, match=r"expected a positive number, or one for each of 2 axes, got 0\.0"):
        DenseHead(head, spacing=np.float32(0))


def test_spacing_of_a_call_goes_before_that_of_the_head() -> None:
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()
    features = torch.randn(1, 4, 3, 3)
    near, far = head(features), head(features, spacing=(3.0, 5.0))
    moved = grid_positions((3, 3), spacing=(3.0, 5.0)) - grid_positions((3, 3))
    torch.testing.assert_close(far.embedding.mean - near.embedding.mean, moved)


def test_maps() -> None:
    output = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()(torch.randn(2, 4, 3, 5))
    std = output.dense(output.embedding.std)
    assert std.shape == (2, 2, 3, 5)
    torch.testing.assert_close(std[1, :, 2, 4], output.embedding.std[-1], rtol=0, atol=0)
    torch.testing.assert_close(output.dense(output.logits[:, 1]), output.dense(output.logits)[:, 1], rtol=0, atol=0)
    for wrong in (torch.zeros(29), torch.zeros(30, 1, 1), torch.zeros(())):
        with pytest.raises(ValueError, match=r"x: expected shape \(30,\) or \(30, C\)"):
            output.dense(wrong)


def test_dtypes() -> None:
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()
    assert head.double()(torch.randn(1, 4, 2, 2).double()).embedding.mean.dtype == torch.float64
    head = head.float()
    with torch.autocast("cpu", torch.bfloat16):
        output = head(torch.randn(1, 4, 300, 2).bfloat16())
    assert output.embedding.mean.dtype == torch.float32
    assert (output.embedding.mean - grid_positions((300, 2))).abs().max() <= 1  # positions are not rounded
    with pytest.raises(TypeError, match="expected floating-point features and positions"):
        head(torch.ones(1, 4, 2, 2, dtype=torch.int64))


def test_channels_last_and_no_pixels() -> None:
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()
    features = torch.randn(2, 4, 5, 3)
    one, other = head(features), head(features.to(memory_format=torch.channels_last))
    torch.testing.assert_close(one.embedding, other.embedding)
    assert head(features[:0]).shape == (0, 5, 3)
    assert head(features[..., :0]).embedding.mean.shape == (0, 2)


def test_subclasses_of_tensors_are_unwrapped() -> None:
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()
    features = torch.randn(1, 4, 3, 3, requires_grad=True)
    labels = disks((3, 3), [(1, 1)], 1.0)
    meta = features.as_subclass(Meta)
    output = head(meta)
    for tensor in (output.embedding.mean, output.embedding.log_std, output.logits, output.batch):
        assert type(tensor) is Tensor
    output.logits.sum().backward()
    assert features.grad.abs().sum() > 0
    for given in (labels, [labels > 0]):
        wrapped = [x.as_subclass(Meta) for x in given] if isinstance(given, list) else given.as_subclass(Meta)
        for tensor, plain in zip(dense_targets(wrapped, (1, 3, 3)), dense_targets(given, (1, 3, 3)), strict=True):
            assert type(tensor) is Tensor
            torch.testing.assert_close(tensor, plain, rtol=0, atol=0)
    semantic = dense_targets(labels, (1, 3, 3), semantic=labels.as_subclass(Meta))[1]
    assert type(semantic) is Tensor
    assert Meta.computed < 30  # shapes, dtypes and the unwrapping itself


def test_compiles_and_exports_as_a_whole() -> None:
    """No graph break, and no fake tensor unwrapped; sizes may change."""
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    for size in ((2, 4, 6, 5), (3, 4, 9, 7)):
        features = torch.randn(size)
        output, expected = compiled(features), head(features)
        torch.testing.assert_close(output.embedding, expected.embedding)
        assert output.shape == expected.shape
    exported = torch.export.export(head, (torch.randn(2, 4, 6, 5),), strict=False).module()
    features = torch.randn(2, 4, 6, 5)
    torch.testing.assert_close(exported(features).logits, head(features).logits)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseHead(ProbabilisticHead(4, 2, dim=2), "BHWC"), "layout: expected one of BCHW, BCZYX, got 'BHWC'"),
        (lambda: DenseHead.probabilistic(4, 2, "BCN", offset_scale=1.0), "layout: expected one of BCHW, BCZYX"),
        (lambda: DenseHead(ProbabilisticHead(4, 2, dim=2), "BCZYX"), "head: expected dim >= 3, .* got 2"),
        (lambda: DenseHead(ProbabilisticHead(4, 2, dim=2), spacing=0.0), "spacing: expected a positive number"),
        (lambda: DenseHead(ProbabilisticHead(4, 2, dim=2), spacing=(1.0,) * 3), "spacing: expected a positive number"),
        (
            lambda: DenseHead(ProbabilisticHead(4, 2, dim=2))(torch.zeros(1, 4, 2, 2, 2)),
            r"expected features with the axes BCHW, got shape \(1, 4, 2, 2, 2\)",
        ),
        (lambda: DenseHead(ProbabilisticHead(4, 2, dim=2))(torch.zeros(1, 3, 2, 2)), r"expected features \(N, 4\)"),
        (
            lambda: DenseHead(ProbabilisticHead(4, 2, dim=2))(torch.zeros(1, 4, 2, 2), spacing=-1.0),
            "spacing: expected a positive number",
        ),
    ],
)
def test_head_errors(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- training and clustering


@pytest.mark.parametrize(
    ("layout", "shape", "spacing"), [("BCHW", (16, 16), 0.5), ("BCZYX", (8, 12, 12), (1.0, 0.5, 0.5))]
)
def test_five_lines_learn_two_images(layout, shape, spacing) -> None:
    """A network that sees where it is learns to tell objects apart; masks come back as they were."""
    torch.manual_seed(0)
    centers = [tuple(s // 4 for s in shape), tuple(s - 1 - s // 4 for s in shape)]
    masks = torch.cat([disks(shape, centers, 2.5), disks(shape, centers[1:], 2.5)])
    place = grid_positions(shape).reshape(*shape, -1).movedim(-1, 0) / max(shape)
    image = torch.cat([place.expand(2, *place.shape), (masks[:, None] > 0).float()], dim=1)
    network = [nn.Conv2d, nn.Conv3d][len(shape) - 2](image.shape[1], 16, 1)
    head = DenseHead.probabilistic(16, num_classes=2, layout=layout, spacing=spacing, offset_scale=4.0, initial_std=1.0)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.02)
    criterion = ProbabilisticEmbeddingLoss()
    instance, semantic = dense_targets(masks, (2, *shape))
    for _ in range(60):
        output = head(network(image))
        optimizer.zero_grad()
        criterion(output, instance, semantic, output.batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        output = head.eval()(network(image))
    found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, min_points=4)
    images = label_image(found, output.shape).long()
    assert images.amax(dim=tuple(range(1, images.ndim))).tolist() == [2, 1]
    assert ((images > 0) == (masks > 0)).float().mean() > 0.98
    for b, count in ((0, 2), (1, 1)):  # one to one with the truth, whatever the order
        pairs = torch.stack([images[b], masks[b]])[:, (images[b] > 0) & (masks[b] > 0)].unique(dim=1)
        assert pairs.shape[1] == count


def test_learnable_margins_take_the_same_output() -> None:
    head = DenseHead(LearnableMarginHead(4, num_classes=2, dim=2, initial_margin=1.0, hidden=(8,)))
    output = head(torch.randn(2, 4, 6, 6))
    masks = disks((6, 6), [(1, 1), (4, 4)], 1.5).expand(2, -1, -1)
    instance, semantic = dense_targets(masks, output.shape)
    LearnableMarginLoss()(output, instance, semantic, output.batch)["loss"].backward()
    assert all(p.grad is not None for p in head.parameters())
    found = margin_cluster(output.embedding, output.probabilities, batch=output.batch)
    assert label_image(found, output.shape).shape == (2, 6, 6)
    assert output.packed.margin.shape == (72, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_as_on_the_cpu() -> None:
    head = DenseHead.probabilistic(4, num_classes=2, offset_scale=2.0, spacing=0.5).eval()
    features, masks = torch.randn(2, 4, 12, 10), disks((12, 10), [(3, 3), (8, 6)], 2.0).expand(2, -1, -1)
    expected = head(features)
    found = greedy_cluster(expected.embedding, expected.probabilities, batch=expected.batch)
    output = head.cuda()(features.cuda())
    torch.testing.assert_close(output.embedding.mean.cpu(), expected.embedding.mean, rtol=1e-3, atol=1e-3)
    for one, other in zip(dense_targets(masks.cuda(), output.shape), dense_targets(masks, output.shape), strict=True):
        assert one.is_cuda
        assert torch.equal(one.cpu(), other)
    on_gpu = found.to("cuda")
    assert torch.equal(label_image(on_gpu, output.shape).cpu(), label_image(found, output.shape))
    assert object_csv(on_gpu, output.shape) == object_csv(found, output.shape)


# --- targets


IMAGES = torch.tensor([[[0, 7, 7], [0, 255, 2]], [[0, 0, 0], [7, 7, 7]]])
SHAPE = (2, 2, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, np.uint16, np.int32])
@pytest.mark.parametrize("channel", [False, True])
def test_label_images(dtype, channel) -> None:
    labels = IMAGES.unsqueeze(1) if channel else IMAGES
    given = labels.to(dtype) if isinstance(dtype, torch.dtype) else labels.numpy().astype(dtype)
    instance, semantic = dense_targets(given, SHAPE)
    assert instance.tolist() == [-1, 7, 7, -1, 255, 2, -1, -1, -1, 7, 7, 7]
    assert semantic.tolist() == [0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    instance, semantic = dense_targets(given, SHAPE, PASCAL_VOC)
    assert instance.tolist() == [-1, 7, 7, -1, -100, 2, -1, -1, -1, 7, 7, 7]
    assert semantic.tolist() == [0, 1, 1, 0, -100, 1, 0, 0, 0, 1, 1, 1]


def test_minus_one_is_ignored_by_preset() -> None:
    labels = torch.where(IMAGES == 255, -1, IMAGES)
    assert dense_targets(labels, SHAPE, STARDIST)[0].tolist()[4] == -100
    with pytest.raises(ValueError, match="expected values >= 0 or with a meaning in this convention"):
        dense_targets(labels, SHAPE)


def test_classes_of_pixels() -> None:
    classes = torch.tensor([[[0, 3, 3], [0, 255, 1]], [[0, 0, 0], [2, 2, 2]]], dtype=torch.uint8)
    instance, semantic = dense_targets(IMAGES, SHAPE, PASCAL_VOC, semantic=classes[:, None])
    assert instance.tolist()[:6] == [-1, 7, 7, -1, -100, 2]
    assert semantic.tolist() == [0, 3, 3, 0, -100, 1, 0, 0, 0, 2, 2, 2]


def test_volumes() -> None:
    volume = torch.arange(24).reshape(2, 2, 3, 2) % 3
    instance, semantic = dense_targets(volume, volume.shape)
    torch.testing.assert_close(instance, torch.where(volume > 0, volume, -1).flatten(), rtol=0, atol=0)
    torch.testing.assert_close(semantic, (volume > 0).long().flatten(), rtol=0, atol=0)


def masks_of(image: Tensor) -> Tensor:
    return torch.stack([image == number for number in image.unique().tolist() if number])


@pytest.mark.parametrize("as_numpy", [False, True])
def test_stacks_of_masks(as_numpy) -> None:
    """As many masks as an image has objects, in any number, none too; the objects are those of the label images."""
    stacks = [masks_of(image) for image in IMAGES]
    given = [stack.numpy() for stack in stacks] if as_numpy else stacks
    instance, semantic = dense_targets(given, SHAPE)
    assert instance.tolist() == [-1, 1, 1, -1, 2, 0, -1, -1, -1, 0, 0, 0]
    assert semantic.tolist() == dense_targets(IMAGES, SHAPE)[1].tolist()
    empty = [stacks[0], torch.zeros(0, 2, 3, dtype=torch.bool)]
    assert dense_targets(empty, SHAPE)[0].tolist()[6:] == [-1] * 6


def test_one_hot_images() -> None:
    one_hot = torch.stack([masks_of(image) for image in IMAGES[:1].expand(2, -1, -1)])  # (2, 3, 2, 3)
    instance, semantic = dense_targets(one_hot, SHAPE, semantic=torch.tensor([[1, 1, 2], [3, 4, 5]]))
    assert instance.tolist() == [-1, 1, 1, -1, 2, 0] * 2
    assert semantic.tolist() == [0, 1, 1, 0, 2, 1, 0, 4, 4, 0, 5, 3]
    only = dense_targets(one_hot[:, :1], SHAPE)[0]  # one channel of bool is one mask
    assert only.tolist() == [-1, -1, -1, -1, -1, 0] * 2


def test_pixels_of_several_masks_are_ignored() -> None:
    masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]], dtype=torch.bool)
    for semantic in (None, [torch.tensor([1, 2])], torch.tensor([[1, 2]])):
        instance, of_pixel = dense_targets([masks], (1, 1, 3), semantic=semantic)
        assert instance.tolist() == [0, -100, 1]
        assert of_pixel.tolist()[1] == -100
    classes = torch.tensor([[[1, 255, 2]]])
    instance, of_pixel = dense_targets([masks], (1, 1, 3), PASCAL_VOC, semantic=classes)
    assert (instance.tolist(), of_pixel.tolist()) == ([0, -100, 1], [1, -100, 2])


def test_masks_with_a_class_to_ignore() -> None:
    masks = torch.eye(2, dtype=torch.bool)[None, :, None]  # one image, two masks of a pixel each
    convention = LabelConvention(ignored_semantic=(255,), ignored_semantic_ignores_instance=True)
    instance, semantic = dense_targets(masks, (1, 1, 2), convention, semantic=torch.tensor([[255, 3]]))
    assert (instance.tolist(), semantic.tolist()) == ([-100, 1], [-100, 3])


def test_inputs_are_not_changed() -> None:
    labels, masks = IMAGES.clone(), masks_of(IMAGES[0])
    before = masks.clone()
    dense_targets(labels, SHAPE, PASCAL_VOC)[0].fill_(5)
    dense_targets([masks], (1, 2, 3))[0].fill_(5)
    torch.testing.assert_close(labels, IMAGES, rtol=0, atol=0)
    assert torch.equal(masks, before)


STACK = torch.zeros(2, 2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("labels", "shape", "semantic", "error", "message"),
    [
        (IMAGES, (2, 3), None, ValueError, "shape: expected (B, H, W) or (B, Z, Y, X), got (2, 3)"),
        (IMAGES, (2, 3, 2), None, ValueError, "labels: expected label images (2, 3, 2), or with a channel axis"),
        (IMAGES.expand(2, 2, 2, 3), SHAPE, None, ValueError, "one-hot images become masks by .bool()"),
        (IMAGES.float(), SHAPE, None, TypeError, "instance: expected an integer type"),
        (IMAGES, SHAPE, IMAGES[:1], ValueError, "semantic: expected label images (2, 2, 3)"),
        (IMAGES, SHAPE, [IMAGES[0]], TypeError, "semantic: expected one tensor, as labels is one"),
        ([STACK], SHAPE, None, ValueError, "labels: expected masks of 2 images, got 1"),
        ([], (0, 2, 3), None, ValueError, "labels: expected the masks of at least one image"),
        ([STACK, IMAGES], SHAPE, None, TypeError, "labels[1]: expected masks of torch.bool, got torch.int64"),
        ([STACK, STACK[0]], SHAPE, None, ValueError, "labels[1]: expected masks (K, 2, 3), got (2, 3)"),
        ([STACK, STACK], SHAPE, [torch.tensor([1, 2])], ValueError, "semantic: expected the classes of 2 images"),
        ([STACK[:1]], (1, 2, 3), [torch.tensor([1, 2])], ValueError, "semantic[0]: expected a class for each of 1"),
        ([STACK[:1]], (1, 2, 3), [torch.tensor([1.0])], TypeError, "semantic[0]: expected integers"),
        ([STACK], (1, 2, 3), torch.zeros(1, 2, 2, dtype=torch.int64), ValueError, "semantic: expected label images"),
    ],
)
def test_target_errors(labels, shape, semantic, error, message) -> None:
    with pytest.raises(error, match=re.escape(message)):
        dense_targets(labels, shape, semantic=semantic)


@pytest.mark.parametrize("kind", [ProbabilisticEmbeddingLoss, CenterAwareLoss, SeedMSELoss, LearnableMarginLoss])
def test_losses_keep_images_apart_by_themselves(kind) -> None:
    """Label images count anew in each: without the images, objects of the same number would be one."""
    output = DenseHead.probabilistic(4, num_classes=2, offset_scale=3.0, hidden=())(torch.randn(2, 4, 6, 6))
    instance, semantic = dense_targets(disks((6, 6), [(1, 1), (4, 4)], 1.5).expand(2, -1, -1), output.shape)
    by_itself, told, together = (
        value["loss"] if isinstance(value, dict) else value
        for value in (kind()(output, instance, semantic, b) for b in (None, output.batch, 0 * output.batch))
    )
    assert by_itself == told
    assert by_itself != together


# --- results


def found_in(labels: Tensor, **changes) -> Instances:
    """Instances of label images (B, …) in a mixed order of creation."""
    batch = torch.arange(len(labels)).view(-1, *[1] * (labels.ndim - 1)).expand(labels.shape).flatten()
    row, rows = torch.full_like(labels.flatten(), -1), []
    for b, image in enumerate(labels):
        for number in reversed(image.unique().tolist()):
            if number:
                row[(batch == b) & (labels.flatten() == number)] = len(rows)
                rows.append(b)
    k, axes = len(rows), labels.ndim - 1
    log_std = torch.linspace(-1, 1, max(k * axes, 1))[: k * axes].reshape(k, axes)
    fields = {
        "label": row,
        "semantic": torch.arange(1, k + 1),
        "score": torch.linspace(1, 0.5, k),
        "seed": torch.zeros(k, dtype=torch.int64),
        "batch": torch.tensor(rows, dtype=torch.int64),
        "embedding": GaussianEmbedding(torch.zeros(k, axes), log_std),
        "point_batch": batch,
    }
    return Instances(**{**fields, **changes})


def test_each_image_counts_its_instances_from_1() -> None:
    found = found_in(IMAGES)
    image = label_image(found, SHAPE)
    assert image.dtype == torch.int32
    assert int((image > 0).sum()) == 7  # which torch cannot do with uint16
    assert image.tolist() == [[[0, 2, 2], [0, 1, 3]], [[0, 0, 0], [1, 1, 1]]]
    assert label_image(found, SHAPE, dtype=torch.uint8).dtype == torch.uint8
    assert label_image(found_in(torch.zeros(1, 2, 2, dtype=torch.int64)), (1, 2, 2)).tolist() == [[[0, 0], [0, 0]]]


def test_more_than_uint16_holds() -> None:
    labels = torch.arange(1, 2**16 + 1).reshape(1, 256, 256)
    k = 2**16
    found = found_in(
        labels[:, :1, :1],
        label=labels.flatten() - 1,
        batch=torch.zeros(k, dtype=torch.int64),
        semantic=torch.ones(k, dtype=torch.int64),
        point_batch=torch.zeros(k, dtype=torch.int64),
    )
    image = label_image(found, labels.shape)
    assert image.dtype == torch.int32
    torch.testing.assert_close(image.long(), labels, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"dtype: expected one that holds 65536, got torch.uint16 up to 65535"):
        label_image(found, labels.shape, dtype=torch.uint16)


def test_targets_of_a_label_image_are_its_instances() -> None:
    labels = disks((12, 10), [(3, 3), (8, 6)], 2.0)
    found = found_in(labels)
    image = label_image(found, (1, 12, 10))
    again = dense_targets(image, (1, 12, 10))[0]
    torch.testing.assert_close(torch.where(again >= 0, again - 1, -1), found.label, rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "spacing"), [((11, 9), 1.0), ((11, 9), (0.5, 0.25)), ((5, 8, 9), (2.0, 0.5, 0.25))])
def test_table(shape, spacing) -> None:
    """Against a loop over the objects of the label image."""
    one = disks(shape, [tuple(s // 3 for s in shape), tuple(s - 2 for s in shape)], 1.6)
    labels = torch.cat([one, torch.zeros_like(one), one * (one == 2)])
    found = found_in(labels)
    image, rows = label_image(found, labels.shape).numpy(), object_table(found, labels.shape, spacing=spacing)
    steps = np.broadcast_to(spacing, len(shape))
    assert [(row["image"], row["label"]) for row in rows] == [(0, 1), (0, 2), (2, 1)]
    for k, row in enumerate(rows):
        index = np.argwhere(image[row["image"]] == row["label"])
        expected = {
            "image": row["image"],
            "label": row["label"],
            "class": k + 1,
            "score": float(found.score[k]),
            "sigma": float(found.embedding.std[k].double().prod() ** (1 / len(shape))),
            "pixels": len(index),
            "area" if len(shape) == 2 else "volume": len(index) * steps.prod(),
            **{f"centroid-{a}": x for a, x in enumerate(index.mean(0) * steps)},
            **{f"bbox-{i}": x for i, x in enumerate([*index.min(0), *(index.max(0) + 1)])},
        }
        assert list(row) == list(expected)
        assert row == pytest.approx(expected, rel=1e-6)
        assert all(type(row[name]) is int for name in ("image", "label", "class", "pixels", "bbox-0"))


def test_csv_is_the_table() -> None:
    found = found_in(IMAGES)
    text = object_csv(found, SHAPE, spacing=0.5)
    rows = object_table(found, SHAPE, spacing=0.5)
    assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))] == rows
    nothing = found_in(torch.zeros(1, 2, 2, 2, dtype=torch.int64))
    assert object_table(nothing, (1, 2, 2, 2)) == []
    assert object_csv(nothing, (1, 2, 2, 2)).startswith("image,label,class,score,sigma,pixels,volume,centroid-0")


def test_hidden_instances_have_no_row() -> None:
    """What another one overwrote; the numbers of the others stay those of the label image."""
    found = found_in(torch.tensor([[[1, 2, 2]]]))
    hidden = found_in(torch.tensor([[[1, 2, 2]]]), label=torch.tensor([1, 1, 1]))
    assert len(object_table(found, (1, 1, 3))) == 2
    (row,) = object_table(hidden, (1, 1, 3))
    assert (row["label"], row["pixels"]) == (2, 3)
    assert label_image(hidden, (1, 1, 3)).unique().tolist() == [2]


@pytest.mark.parametrize("function", [label_image, object_table, object_csv])
def test_result_errors(function) -> None:
    found = found_in(IMAGES)
    with pytest.raises(
        ValueError, match=r"shape: expected one of 12 pixels, as many as were clustered, got \(2, 2, 2\)"
    ):
        function(found, (2, 2, 2))
    with pytest.raises(ValueError, match=r"shape: expected \(B, H, W\) or \(B, Z, Y, X\), got \(12,\)"):
        function(found, (12,))
    # Images that were clustered as one cloud, and clouds that are no images: instances would share numbers.
    together = found_in(IMAGES, point_batch=torch.zeros(12, dtype=torch.int64))
    for wrong, shape in ((together, SHAPE), (found, (1, 3, 4))):
        with pytest.raises(ValueError, match=r"expected pixels of \d images, each a cloud of its own, got"):
            function(wrong, shape)


def test_other_result_errors() -> None:
    found = found_in(IMAGES)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(TypeError, match="dtype: expected an integer type of torch"):
            label_image(found, SHAPE, dtype=dtype)
    with pytest.raises(ValueError, match="spacing: expected a positive number"):
        object_table(found, SHAPE, spacing=(1.0, 2.0, 3.0))


def test_is_a_tuple_that_travels() -> None:
    """Through data-parallel wrappers and pytrees, as the outputs of the other heads."""
    output = DenseHead.probabilistic(4, num_classes=2, offset_scale=1.0).eval()(torch.randn(1, 4, 2, 2))
    leaves, spec = torch.utils._pytree.tree_flatten(output)
    again = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, DenseOutput)
    assert again.shape == (1, 2, 2)


# --- windows


class Lattice(nn.Module):
    """By hand: σ² ∇I / I of Gaussian blobs is the way to their centres; a pixel beyond is seen."""

    def __init__(self, layout, spacing, dim: int) -> None:
        super().__init__()
        self.layout, self.spacing, self.dim = layout, spacing, dim
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, window: Tensor) -> DenseOutput:
        self.sizes.append(tuple(window.shape[2:]))
        axes = window.ndim - 2
        logs = window[0, 0].log()
        steps = torch.as_tensor(self.spacing).expand(axes)
        toward = torch.stack([torch.gradient(logs, dim=a)[0] * 9.0 * steps[a] for a in range(axes)])
        packed, batch = pack_dense(toward[None], self.layout)
        mean = grid_positions(window.shape[2:], spacing=self.spacing) + packed
        mean = nn.functional.pad(mean, (0, self.dim - axes))
        score = 12 * (window.flatten() - 0.3)
        output = HeadOutput(
            GaussianEmbedding(mean, torch.zeros(len(mean), 1)), torch.stack([torch.zeros_like(score), score], 1)
        )
        return DenseOutput(output, batch, (1, *window.shape[2:]))


def blobs(shape: tuple[int, ...], period: int) -> Tensor:
    """Gaussian blobs of σ = 3 pixels on a lattice, (1, 1, …)."""
    away = (grid_positions(shape) + 4) % period - period // 2
    return torch.exp(-away.square().sum(1) / 18).reshape(1, 1, *shape)


@pytest.mark.parametrize(
    ("layout", "shape", "spacing", "multiple_of", "dim"),
    [
        ("BCHW", (50, 61), 1.0, 1, 2),
        ("BCHW", (50, 61), (0.5, 0.25), 8, 2),
        ("BCHW", (30, 61), 0.5, (64, 1), 4),
        ("BCZYX", (14, 32, 40), (2.0, 1.0, 1.0), 4, 3),
    ],
)
def test_windows_find_what_the_whole_image_has(layout, shape, spacing, multiple_of, dim) -> None:
    image, network = blobs(shape, 15), Lattice(layout, spacing, dim)
    whole = network(image)
    expected = greedy_cluster(whole.embedding, whole.probabilities, threshold=0.8, min_points=5)
    network.sizes.clear()
    found = cluster_tiles(
        grid_positions(shape, spacing=spacing),
        window_predictor(image, network, spacing=spacing, multiple_of=multiple_of),
        tile_size=10.0,
        overlap=6.0,
        axes=range(len(shape)),
        threshold=0.8,
        min_points=5,
    )
    assert len(network.sizes) > 1
    multiples = np.broadcast_to(multiple_of, len(shape))
    assert all(n % m == 0 for size in network.sizes for n, m in zip(size, multiples, strict=True))
    assert len(found) == len(expected) > 4
    scores = match_label_images(label_image(found, (1, *shape)), label_image(expected, (1, *shape)), iou_threshold=0.9)
    assert len(scores.iou) == len(expected)
    by_center = found.embedding.mean[scores.pred - 1], expected.embedding.mean[scores.true - 1]
    torch.testing.assert_close(*by_center, rtol=0, atol=2)  # borders of windows count less


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.uint16, torch.bool])
def test_a_window_beyond_the_image_repeats_its_border(dtype: torch.dtype) -> None:
    seen = []

    def network(window: Tensor) -> DenseOutput:
        assert window.dtype == dtype
        seen.append(window.float())
        return Lattice("BCHW", 1.0, 2)(window.float())

    image = torch.tensor([[[[1, 0, 3], [4, 5, 0]]]]).to(dtype)
    embedding, probabilities = window_predictor(image, network, multiple_of=np.int64(4))(torch.tensor([5, 0]))
    border = torch.tensor([[[[1, 0, 3, 3], [4, 5, 0, 0], [4, 5, 0, 0], [4, 5, 0, 0]]]]).to(dtype)
    assert seen[0].tolist() == border.float().tolist()
    whole = Lattice("BCHW", 1.0, 2)(seen[0])
    torch.testing.assert_close(embedding, whole.embedding.select(torch.tensor([6, 0])), rtol=0, atol=0)
    torch.testing.assert_close(probabilities, whole.probabilities[[6, 0]], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": torch.zeros(2, 1, 4, 4)}, r"image: expected shape \(1, C, H, W\) or \(1, C, Z, Y, X\), got \(2,"),
        ({"image": torch.zeros(1, 4, 4)}, r"image: expected shape \(1, C, H, W\)"),
        ({"spacing": 0.0}, "spacing: expected a positive number"),
        ({"multiple_of": 0}, "multiple_of: expected a number >= 1"),
        ({"multiple_of": (2, 2, 2)}, "multiple_of: expected a number >= 1, or one for each of 2 axes"),
    ],
)
def test_window_errors(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        window_predictor(**{"image": torch.zeros(1, 1, 4, 4), "network": Lattice("BCHW", 1.0, 2), **arguments})


def test_outputs_of_a_window_are_checked() -> None:
    image, network = torch.ones(1, 1, 4, 4), Lattice("BCHW", 1.0, 2)
    rows = torch.arange(16)
    with pytest.raises(TypeError, match="network: expected the DenseOutput of a DenseHead, got HeadOutput"):
        window_predictor(image, lambda window: network(window).packed)(rows)
    with pytest.raises(ValueError, match=r"output of shape \(1, 4, 4\), as the window, got \(1, 2, 4\)"):
        window_predictor(image, lambda window: network(window[..., :2, :]))(rows)


def test_pixels_beyond_the_image() -> None:
    """Positions of another image: taken modulo its size, they would be others of this one."""
    predict = window_predictor(torch.ones(1, 1, 4, 4), Lattice("BCHW", 1.0, 2))
    with pytest.raises(ValueError, match=r"rows: expected those of an image \(4, 4\), got 16: .*grid_positions"):
        predict(torch.tensor([0, 16]))
