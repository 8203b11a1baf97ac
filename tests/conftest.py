"""Settings of all tests: one thread a process, as tests run side by side, and the same examples at every run."""

import os

os.environ.setdefault("MPLBACKEND", "agg")
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch and numpy start their threads

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
