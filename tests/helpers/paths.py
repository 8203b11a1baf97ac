"""Where the project lies, and the known answers that tests compare with."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TEST_DATA = PROJECT / "tests" / "data"
PACKAGES = os.pathsep.join(str(PROJECT / name) for name in (".", "adapters", "shapes"))  # PYTHONPATH
