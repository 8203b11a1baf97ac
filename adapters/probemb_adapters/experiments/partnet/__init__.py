"""PointNet++ with probabilistic embeddings on PartNet: a trained model, its training and its evaluation.

Three lines segment a cloud with a model of a file:

    model = Model.load("checkpoints/furniture.safetensors")
    embedding, probabilities = model.predict(Data(pos=positions))    # (N, 3), in the unit sphere, y up
    found = model.cluster(embedding, probabilities)                  # found.label (N,): the part of each point
"""

from probemb_adapters.experiments.partnet.data import Split, read_split
from probemb_adapters.experiments.partnet.evaluation import Evaluation, evaluate_baselines, evaluate_model, score
from probemb_adapters.experiments.partnet.model import Model, Network, threshold_grid
from probemb_adapters.experiments.partnet.options import Options, resolve
from probemb_adapters.experiments.partnet.prediction import run_prediction
from probemb_adapters.experiments.partnet.results import section, table, write_numbers
from probemb_adapters.experiments.partnet.run import run_evaluation, run_training
from probemb_adapters.experiments.partnet.training import about_model, train_model

__all__ = [
    "Evaluation",
    "Model",
    "Network",
    "Options",
    "Split",
    "about_model",
    "evaluate_baselines",
    "evaluate_model",
    "read_split",
    "resolve",
    "run_evaluation",
    "run_prediction",
    "run_training",
    "score",
    "section",
    "table",
    "threshold_grid",
    "train_model",
    "write_numbers",
]
