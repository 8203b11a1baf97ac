"""Open rooms: furnished, scanned and written as ScanNet's files, for training at any scale without a download.

    python -m probemb_shapes.rooms --source data/scan_objects --root .cache/rooms --scenes 60 --seed 0

A room has walls, a floor, a door and windows in their openings, and furniture that touches, stands on and hides other
furniture (`furnish`, `layout`). Some cameras in it see the nearest surfaces with a depth sensor's noise (`camera`), and
what they measure is fused into vertices with colours, objects and segments (`scan`); hidden surfaces are missing. The
scenes are read through `probemb_adapters.scannet.ScanNetScenes`.

Objects are models of `data/scan_objects`, split so that none of validation is seen in training (`models`), and simple
ones, new each time, for classes with fewer than four models (`simple`). ``print(write_rooms(...))`` shows which class
has which. The 18 classes of ScanNet's instance benchmark all occur.
"""

from __future__ import annotations

from probemb_shapes.rooms.models import Models
from probemb_shapes.rooms.scan import Scan
from probemb_shapes.rooms.write import RoomsReport, generate, scene_id, split_of_scene, write_rooms

__all__ = ["Models", "RoomsReport", "Scan", "generate", "scene_id", "split_of_scene", "write_rooms"]
