"""Imported before torch: threads sleep while they wait, as spinning ones crawl as soon as anything else runs.

import probemb_adapters.passive_threads  # noqa: F401
# isort: split

The variable is read when torch is loaded; a value that the environment has stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
