"""MinkowskiNet with probabilistic embeddings, or learnable margins, on ScanNet: models, training, evaluation."""

from probemb_adapters.experiments.scannet.data import (
    evaluation_scenes,
    fitting_scenes,
    held_out_scenes,
    training_scenes,
)
from probemb_adapters.experiments.scannet.evaluation import Evaluation, evaluate_model, fit_setting
from probemb_adapters.experiments.scannet.model import Model, Network, named_models
from probemb_adapters.experiments.scannet.options import Method, Options, Settings, resolve
from probemb_adapters.experiments.scannet.prediction import run_prediction
from probemb_adapters.experiments.scannet.results import write_numbers, write_page
from probemb_adapters.experiments.scannet.training import loss_of, new_model, train_model

__all__ = [
    "Evaluation",
    "Method",
    "Model",
    "Network",
    "Options",
    "Settings",
    "evaluate_model",
    "evaluation_scenes",
    "fit_setting",
    "fitting_scenes",
    "held_out_scenes",
    "loss_of",
    "named_models",
    "new_model",
    "resolve",
    "run_prediction",
    "train_model",
    "training_scenes",
    "write_numbers",
    "write_page",
]
