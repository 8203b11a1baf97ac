"""The losses as functions."""

from probemb_lib.losses.bce import instance_bce
from probemb_lib.losses.center_aware import center_aware
from probemb_lib.losses.cross_entropy import score_cross_entropy
from probemb_lib.losses.dice import log_dice
from probemb_lib.losses.entropy import entropy_regularizer
from probemb_lib.losses.learnable_margin import learnable_margin
from probemb_lib.losses.seed_mse import seed_mse

__all__ = [
    "center_aware",
    "entropy_regularizer",
    "instance_bce",
    "learnable_margin",
    "log_dice",
    "score_cross_entropy",
    "seed_mse",
]
