"""Competing methods behind one interface: the same backbone, data, steps and evaluator serve them all.

    method = DiscriminativeEmbedding(in_channels=128, num_classes=5)
    output = method.head(features, positions, batch)             # training: method.head.train()
    losses = method.loss(output, instance, semantic, batch)      # {"loss": total, and its terms}
    found = method.group(output, batch)                          # probemb_lib.Instances

A method (:class:`~probemb_adapters.baselines.method.Method`) is three things in one file:

- `head(features (N, C), positions (N, D), batch) -> output`: a Module with all the parameters; branches as wide as
  those of the probabilistic head. The output holds what loss and grouping need, positions too.
- `loss(output, instance, semantic, batch) -> dict`: scalars, the total under "loss". Losses of instances are computed
  in each cloud and averaged over the clouds that have the term.
- `group(output, batch) -> Instances`: no randomness, and no dependence on the order of points beyond ties.

Tensors and labels are those of the core: packed points and a batch vector in any order; instance ≥ 0 an instance, −1
none, −100 ignored; semantic in [0, L) or −100; column 0 the background unless told otherwise (None: there is none).
Empty batches, and batches where everything is ignored, give 0 with a gradient of 0.

What is the same in all that are written here, so that a comparison is one of ideas: classes by cross entropy of L
columns, beside the method's own terms; points that are likeliest background are in no instance, except where the method
has a way of its own (PartNet's "other" column); an instance has the class with the highest mean probability over its
members, and, where the method has no confidence of its own, that probability as its score. A point that two instances
claim belongs to the better one, as :class:`~probemb_lib.Instances` give a point one label.

======================================= =======================================================================
:class:`DiscriminativeEmbedding`        De Brabandere 2017: pull and push with margins, mean shift
:class:`ASIS`                           Wang 2019: both branches informing each other
:class:`MTML`                           Lahoud 2019: discriminative features and directions to centres
:class:`SemiConvolutionalEmbedding`     Novotny 2018: positions plus offsets, Laplace kernel
:class:`PartNetMasks`                   Mo 2019: mask columns matched by relaxed IoU
:class:`SGPN`                           Wang 2018: similarity of all pairs, groups merged
:class:`PointGroup`                     Jiang 2020: offsets, ball query on two sets of points, scored clusters
:class:`LearnableMargin`                Neven 2019, of :mod:`probemb_lib.margin`
:class:`ProbabilisticEmbedding`         the method of this library
:class:`PositionClusters`               no learning: any clustering of the positions
======================================= =======================================================================

``probabilistic=True`` puts Gaussian embeddings, compared by κ, into the first, the second and the fourth.
"""

from probemb_adapters.baselines.asis import ASIS
from probemb_adapters.baselines.discriminative import DiscriminativeEmbedding
from probemb_adapters.baselines.method import Method
from probemb_adapters.baselines.mtml import MTML
from probemb_adapters.baselines.partnet_masks import PartNetMasks
from probemb_adapters.baselines.pointgroup import PointGroup
from probemb_adapters.baselines.present import LearnableMargin, PositionClusters, ProbabilisticEmbedding
from probemb_adapters.baselines.semi_convolutional import SemiConvolutionalEmbedding
from probemb_adapters.baselines.sgpn import SGPN

__all__ = [
    "ASIS",
    "MTML",
    "SGPN",
    "DiscriminativeEmbedding",
    "LearnableMargin",
    "Method",
    "PartNetMasks",
    "PointGroup",
    "PositionClusters",
    "ProbabilisticEmbedding",
    "SemiConvolutionalEmbedding",
]
