"""Probabilistic embeddings for instance segmentation (Zhang & Wonka, CVPR 2021).

Every point is a Gaussian, similarity is the Bhattacharyya kernel, and a greedy clustering turns it into instances.
"""

from probemb_lib import convert, functional, labels, metrics
from probemb_lib.aggregate import InstanceIndex, aggregate_instances, index_instances
from probemb_lib.checks import Finding, check_batch
from probemb_lib.clustering import (
    ThresholdFit,
    cluster_tiles,
    fit_threshold,
    greedy_cluster,
    join_instances,
    refine_instances,
)
from probemb_lib.dense import DenseHead, DenseOutput, window_predictor
from probemb_lib.dense_labels import dense_targets
from probemb_lib.dense_objects import label_image, object_csv, object_table
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.head import DeterministicHead, HeadOutput, ProbabilisticHead
from probemb_lib.instances import Instances
from probemb_lib.labels import LabelConvention
from probemb_lib.losses.bce import InstanceBCELoss
from probemb_lib.losses.center_aware import CenterAwareLoss
from probemb_lib.losses.combined import ProbabilisticEmbeddingLoss
from probemb_lib.losses.cross_entropy import ScoreCrossEntropyLoss
from probemb_lib.losses.dice import LogDiceLoss
from probemb_lib.losses.entropy import EntropyRegularizer
from probemb_lib.losses.learnable_margin import LearnableMarginLoss
from probemb_lib.losses.seed_mse import SeedMSELoss
from probemb_lib.margin import LearnableMarginHead, MarginInstances, MarginOutput, margin_cluster
from probemb_lib.settings import SuggestedSettings, suggest_settings
from probemb_lib.similarity import cosine_similarity, log_bhattacharyya, log_bhattacharyya_paired

__version__ = "0.1.0"

__all__ = [
    "CenterAwareLoss",
    "DenseHead",
    "DenseOutput",
    "DeterministicHead",
    "EntropyRegularizer",
    "Finding",
    "GaussianEmbedding",
    "HeadOutput",
    "InstanceBCELoss",
    "InstanceIndex",
    "Instances",
    "LabelConvention",
    "LearnableMarginHead",
    "LearnableMarginLoss",
    "LogDiceLoss",
    "MarginInstances",
    "MarginOutput",
    "ProbabilisticEmbeddingLoss",
    "ProbabilisticHead",
    "ScoreCrossEntropyLoss",
    "SeedMSELoss",
    "SuggestedSettings",
    "ThresholdFit",
    "aggregate_instances",
    "check_batch",
    "cluster_tiles",
    "convert",
    "cosine_similarity",
    "dense_targets",
    "fit_threshold",
    "functional",
    "greedy_cluster",
    "index_instances",
    "join_instances",
    "label_image",
    "labels",
    "log_bhattacharyya",
    "log_bhattacharyya_paired",
    "margin_cluster",
    "metrics",
    "object_csv",
    "object_table",
    "refine_instances",
    "suggest_settings",
    "window_predictor",
]
