"""Tests of what MinkowskiEngine computes wait for it where it is not built; `make test` builds it where it can."""

from importlib.util import find_spec

import pytest

needs_minkowski = pytest.mark.skipif(find_spec("MinkowskiEngine") is None, reason="waits for: make minkowski")

ENGINES = [pytest.param("minkowski", marks=needs_minkowski), pytest.param("torch")]
"""Values of the parameter ``engine``."""
