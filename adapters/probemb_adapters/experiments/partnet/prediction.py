"""The user's own clouds, segmented by a trained model."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.clouds import unit_sphere, write_instances
from probemb_adapters.experiments.partnet.model import Model
from probemb_adapters.experiments.partnet.options import Options
from probemb_adapters.experiments.run import at_all_points, clouds_to_predict, draw_order
from probemb_adapters.files import print_any_name
from probemb_adapters.report import Section, write_report
from probemb_adapters.report.pictures import ShapeResult, instance_colors


def run_prediction(options: Options, fabric: Fabric) -> str:
    """Segment the user's own clouds; results lie in the output folder under the names of the files.

    Returns what to print: where they are.
    """
    print_any_name()
    model = Model.load(options.evaluate[0]).with_clustering(options)
    clouds = clouds_to_predict(options.predict)
    shapes = []
    for cloud in tqdm(clouds, desc="predicting", unit="cloud"):
        pos = unit_sphere(cloud.pos, options.up)
        # As many points as in training; the others take what their nearest neighbour has.
        order = draw_order(len(pos), options.points, options.seed)
        embedding, probabilities = model.predict(Data(pos=torch.from_numpy(pos[order])), fabric)
        found = model.shown(model.cluster(embedding, probabilities, options.threshold)).to("cpu")
        embedding, found = at_all_points(pos, order, embedding.to("cpu"), found)
        colors = (255 * instance_colors(len(found))).astype("uint8")
        write_instances(options.output / cloud.name, cloud, found, embedding, colors)
        rgb = None if cloud.rgb is None else torch.from_numpy(cloud.rgb)
        shapes.append(
            ShapeResult(cloud.name, torch.from_numpy(pos), None, found, embedding.log_std, embedding.mean, rgb)
        )
        sizes = found.size.tolist()
        names = [model.classes[int(c) - model.first_class] for c in found.semantic]
        tqdm.write(
            f"{cloud.name}: {len(found)} parts, largest "
            + ", ".join(
                f"{name} ({size} points)" for size, name in sorted(zip(sizes, names, strict=True), reverse=True)[:4]
            )
        )
    classes = model.classes if model.background is None else ("other", *model.classes)
    part = Section("Predicted clouds", shapes=shapes, classes=classes, noun="part")
    page = write_report(options.output / "report.html", "Parts found in your clouds", [part])
    return f"\nresults  {options.output}/*.npz, *.ply and in the format of each file\nreport   {page}"
