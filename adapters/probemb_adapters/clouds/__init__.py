"""Clouds from anybody's files, and what was found in them written back.

`cloud` is what every reader gives; `read` chooses the reader by the ending of the file, of which there is one a format
or family; `write` puts what was found beside. What keeps positions from losing their digits in float32 is the core's.
"""

from probemb_adapters.clouds.cloud import Array, Cloud, Up, nearest, unit_sphere, y_up
from probemb_adapters.clouds.read import POSITION_NAMES, cloud_files, read_clouds
from probemb_adapters.clouds.write import write_instances
from probemb_lib.positions import check_digits, far_offset

__all__ = [
    "POSITION_NAMES",
    "Array",
    "Cloud",
    "Up",
    "check_digits",
    "cloud_files",
    "far_offset",
    "nearest",
    "read_clouds",
    "unit_sphere",
    "write_instances",
    "y_up",
]
