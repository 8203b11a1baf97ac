"""MinkowskiNet with probabilistic embeddings, or learnable margins, on ScanNet: models, training, evaluation."""

from probemb_adapters.experiments.scannet.data import (
    evaluation_scenes,
    fitting_scenes,
    held_out_scenes,
    training_scenes,
)
from probemb_adapters.experiments.scannet.evaluation import Evaluation, evaluate_model, fit_setting
from probemb_adapters.experiments.scannet.model import Model, Network, method_names
from probemb_adapters.experiments.scannet.options import Method, Options, resolve
from probemb_adapters.experiments.scannet.prediction import run_prediction
from probemb_adapters.experiments.scannet.results import write_numbers, write_page
from probemb_adapters.experiments.scannet.training import train_method

__all__ = [
    "Evaluation",
    "Method",
    "Model",
    "Network",
    "Options",
    "evaluate_model",
    "evaluation_scenes",
    "fit_setting",
    "fitting_scenes",
    "held_out_scenes",
    "method_names",
    "resolve",
    "run_prediction",
    "train_method",
    "training_scenes",
    "write_numbers",
    "write_page",
]
