"""PointNet++ with probabilistic embeddings on PartNet: a trained model, its training and its evaluation.

Three lines segment a cloud with a model of a file:

    model = Model.load("checkpoints/furniture.safetensors")
    embedding, probabilities = model.predict(Data(pos=positions))    # (N, 3), in the unit sphere, y up
    found = model.cluster(embedding, probabilities)                  # found.label (N,): the part of each point
"""

from probemb_adapters.experiments.partnet.data import Split, read_classes_of, read_split, training_data
from probemb_adapters.experiments.partnet.evaluation import (
    Evaluation,
    Tested,
    evaluate_baselines,
    evaluate_model,
    fit_and_test,
    score,
    score_grouping,
)
from probemb_adapters.experiments.partnet.model import Model, Network, named_models, parse_options, threshold_grid
from probemb_adapters.experiments.partnet.options import Options, Settings, resolve
from probemb_adapters.experiments.partnet.prediction import run_prediction
from probemb_adapters.experiments.partnet.results import section, table, write_numbers
from probemb_adapters.experiments.partnet.training import new_model, objective, train_model

__all__ = [
    "Evaluation",
    "Model",
    "Network",
    "Options",
    "Settings",
    "Split",
    "Tested",
    "evaluate_baselines",
    "evaluate_model",
    "fit_and_test",
    "named_models",
    "new_model",
    "objective",
    "parse_options",
    "read_classes_of",
    "read_split",
    "resolve",
    "run_prediction",
    "score",
    "score_grouping",
    "section",
    "table",
    "threshold_grid",
    "train_model",
    "training_data",
    "write_numbers",
]
