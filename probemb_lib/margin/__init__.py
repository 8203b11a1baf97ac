"""The learnable-margin baseline of Table 6: its head, its surrogate of the IoU, and its clustering."""

from probemb_lib.margin.cluster import margin_cluster
from probemb_lib.margin.head import LearnableMarginHead, MarginOutput
from probemb_lib.margin.instances import MarginInstances

__all__ = ["LearnableMarginHead", "MarginInstances", "MarginOutput", "margin_cluster"]
