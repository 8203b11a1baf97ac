"""From embeddings to instances: the greedy clustering of the paper, its threshold, refinement, joining, and tiles."""

from probemb_lib.clustering.fit import ThresholdFit, best_of, fit_threshold
from probemb_lib.clustering.greedy import greedy_cluster
from probemb_lib.clustering.join import join_instances
from probemb_lib.clustering.refine import refine_instances
from probemb_lib.clustering.tiles import cluster_tiles

__all__ = [
    "ThresholdFit",
    "best_of",
    "cluster_tiles",
    "fit_threshold",
    "greedy_cluster",
    "join_instances",
    "refine_instances",
]
