"""Exact evaluators of the benchmarks: numpy or torch in, numpy out."""

from __future__ import annotations

from probemb_lib.metrics.partnet import PartNetAP, average_precision

__all__ = ["PartNetAP", "average_precision"]
