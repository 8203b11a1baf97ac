"""Open rooms side by side through a trained network, in tiles and at once: time, memory, and what is found.

The rooms of `probemb_shapes.rooms`, denser than those of the experiment, stand on one floor; both ways run the same
model in a process of its own, on one thread. Time is that of the processor; memory is the peak above network and input.

    python benchmarks/room_tiles.py MODEL                    1, 5 and 30 rooms, up to 5,000,000 points
    python benchmarks/room_tiles.py MODEL --rooms 2 4 --spacing 0.05

MODEL is a model.safetensors of examples/scannet_minkowski.py, such as checkpoints/rooms.safetensors.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import PeakMemory, Results, header, header_text, in_new_process, write_json

# isort: split
import torch
from torch import Tensor
from torch_geometric.data import Data

from probemb_adapters.experiments import scannet
from probemb_adapters.experiments.scannet.prediction import predict_cloud
from probemb_adapters.scannet import ScanNetScenes, evaluation_target
from probemb_adapters.training import start_fabric
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.demo_data import PROJECT, open_models
from probemb_shapes.rooms import write_rooms

GAP = 0.2  # metres between rooms
TILE, OVERLAP = 8.0, 2.0  # metres, as the example's --predict


def floor(rooms: int, spacing: float) -> Data:
    """The first rooms on a square grid, as one scene."""
    count = max(5, rooms)
    root = PROJECT / ".cache" / f"rooms-{count}-{spacing:g}"
    write_rooms(open_models("scan_objects"), root, scenes=count, spacing=spacing)
    splits = [ScanNetScenes(root, split) for split in ("train", "val")]
    scenes = [scene for split in splits for scene in split][:rooms]  # type: ignore[attr-defined]
    cell = max(float((s.pos.amax(0) - s.pos.amin(0))[:2].max()) for s in scenes) + GAP
    columns = math.ceil(math.sqrt(rooms))
    pos, instance, objects = [], [], 0
    for number, scene in enumerate(scenes):
        place = torch.tensor([number % columns, number // columns, 0]) * cell
        pos.append(scene.pos - scene.pos.amin(0) + place)
        instance.append(torch.where(scene.instance >= 0, scene.instance + objects, scene.instance))
        objects += int(scene.instance.max()) + 1
    points = sum(map(len, pos))
    joined = {name: torch.cat([scene[name] for scene in scenes]) for name in ("x", "semantic", "label")}
    return Data(
        pos=torch.cat(pos),
        instance=torch.cat(instance),
        vertex=torch.arange(points),
        num_vertices=points,
        scene_id=f"{rooms} rooms",
        **joined,
    )


def measure(path: Path, rooms: int, spacing: float, tile_size: float) -> tuple[dict[str, Any], Tensor]:
    """Numbers of one way, and the labels."""
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    model = scannet.Model.load(path)
    options = scannet.Options(tile_size=tile_size, tile_overlap=OVERLAP)
    scene = floor(rooms, spacing)
    some = scene.pos[:, :2].amax(1) < 2
    predict_cloud(model, Data(pos=scene.pos[some], x=scene.x[some]), options, fabric)  # code and buffers are loaded
    with PeakMemory() as peak:
        start = time.process_time()
        found, _ = predict_cloud(model, scene, options, fabric)
        seconds = time.process_time() - start
    metric, ids = ScanNetAP(model.class_ids), torch.tensor(model.class_ids)
    metric.update_labels(found.label, ids[found.semantic - 1], found.score, evaluation_target(model.labelled(scene)))
    result = metric.compute()
    numbers = {"cpu_s": seconds, "peak_mb": peak.megabytes, "instances": len(found)}
    return numbers | {name: 100 * float(result[name]) for name in ("ap50", "ap25")}, found.label


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rooms", type=int, nargs="+", default=[1, 5, 30])
    parser.add_argument("--spacing", type=float, default=0.019, help="metres between vertices")
    parser.add_argument("--largest", type=int, default=30, help="most rooms to predict at once")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    head = header()
    print(header_text(head))
    print(f"\n{'rooms':>6}{'points':>12}{'':>8}{'CPU s':>9}{'MB':>8}{'found':>7}{'AP50':>7}{'AP25':>7}")
    rows = []
    for rooms in options.rooms:
        ways = {"tiles": TILE} | ({"at once": math.inf} if rooms <= options.largest else {})
        row: dict[str, Any] = {"rooms": rooms}
        for name, size in ways.items():
            numbers, label = in_new_process(measure, options.model, rooms, options.spacing, size)
            row |= {"points": len(label), name: numbers}
            print(
                f"{rooms:6}{len(label):12,}{name:>8}{numbers['cpu_s']:9.1f}{numbers['peak_mb']:8.0f}"
                f"{numbers['instances']:7}{numbers['ap50']:7.1f}{numbers['ap25']:7.1f}",
                flush=True,
            )
        rows.append(row)
    if options.output is not None:
        write_json(options.output, head, {"room_tiles": Results(numbers={"sizes": rows})})


if __name__ == "__main__":
    main()
