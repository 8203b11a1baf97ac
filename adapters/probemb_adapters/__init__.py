"""Data sets, networks, training, experiments and reports around probemb_lib, one folder each; import what you need."""

from probemb_adapters import _moved

_moved.install(__name__)
