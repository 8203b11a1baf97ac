"""Exact evaluators of the benchmarks: numpy or torch in, numpy out."""

from __future__ import annotations

from probemb_lib.metrics.partnet import PartNetAP, average_precision
from probemb_lib.metrics.scannet import ScanNetAP

__all__ = ["PartNetAP", "ScanNetAP", "average_precision"]
