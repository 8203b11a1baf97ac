"""The learnable-margin baseline of Table 6: its head, its surrogate of the IoU, and its clustering."""

from probemb_lib.margin.head import LearnableMarginHead, MarginOutput

__all__ = ["LearnableMarginHead", "MarginOutput"]
