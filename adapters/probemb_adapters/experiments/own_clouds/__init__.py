"""Anybody's labelled clouds: a PointNet++ trained on a folder of them, tested, and used on others; no file format."""

from probemb_adapters.experiments.own_clouds.model import Model
from probemb_adapters.experiments.own_clouds.options import PRESETS, Options, Preset, Settings
from probemb_adapters.experiments.own_clouds.prediction import run_prediction
from probemb_adapters.experiments.own_clouds.run import run_evaluation, run_training

__all__ = [
    "PRESETS",
    "Model",
    "Options",
    "Preset",
    "Settings",
    "run_evaluation",
    "run_prediction",
    "run_training",
]
