"""Exact evaluators of the benchmarks: numpy or torch in, numpy out."""

from __future__ import annotations

from probemb_lib.metrics.label_images import LabelImageAP, LabelImageMatches, match_label_images
from probemb_lib.metrics.panoptic import PanopticQuality
from probemb_lib.metrics.partnet import PartNetAP, average_precision
from probemb_lib.metrics.scannet import ScanNetAP

__all__ = [
    "LabelImageAP",
    "LabelImageMatches",
    "PanopticQuality",
    "PartNetAP",
    "ScanNetAP",
    "average_precision",
    "match_label_images",
]
