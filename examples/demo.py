"""What `make demo` shows: nuclei in microscope images, a training from scratch, parts of real furniture.

First the checkpoint of nuclei looks at test images, with a report of its own. Then PointNet++ learns for a few minutes
on generated chairs. Then the checkpoint of furniture looks for the parts of real models that it has never seen, beside
what clustering the positions finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from probemb_adapters.experiments import partnet
from probemb_adapters.experiments.images import evaluation, model, options, results
from probemb_adapters.experiments.run import write_results
from probemb_adapters.images import read_nuclei, read_sides
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import PROJECT, partnet_folder


@dataclass
class DemoOptions:
    """Settings of the demo."""

    epochs: int = 12
    """passes over the generated chairs; about 20 seconds each on two cores"""
    chairs: int = 160
    """generated chairs to train on"""
    shapes: int | None = None
    """use only so many images, and shapes of each split, for a quick look"""
    output: Path = Path("runs/demo")
    """folder for the report, the pictures and the numbers"""


def nuclei(demo: DemoOptions) -> str:
    """The checkpoint of nuclei on every third test image; what to print."""
    data = PROJECT / "data" / "nuclei" / "nuclei.npz"
    test = read_sides(read_nuclei(data), data)["test"][::3][: demo.shapes]
    found = evaluation.evaluate("probabilistic", model.Model.load(PROJECT / "checkpoints" / "nuclei.safetensors"), test)
    output = demo.output / "nuclei"
    output.mkdir(parents=True, exist_ok=True)
    return results.write_results("Nuclei found in images", [found], test, options.Options(output=output, data=data), [])


def main() -> None:
    demo = tyro.cli(DemoOptions, description=__doc__)
    print(nuclei(demo))

    common = partnet.Options(
        output=demo.output, max_shapes=demo.shapes, generated_shapes=demo.chairs, accelerator="cpu"
    )
    fabric = start_fabric(accelerator="cpu")

    chairs = partnet.resolve(
        replace(common, category="Chair", level=3, class_agnostic=True, epochs=demo.epochs, width=0.5)
    )
    root = partnet_folder(chairs.category, chairs.generated_shapes, fabric)
    data, _ = partnet.training_data(root, chairs)
    network = partnet.new_model(("part",), chairs, fabric)
    history = partnet.train_model(network, data, partnet.objective(chairs), chairs, fabric)
    val, test = (partnet.Split(root, chairs, name, fabric) for name in ("val", "test"))
    name = f"{chairs.embedding}, generated chairs"
    of_chairs = partnet.evaluate_model(name, network, root, val, test, chairs, fabric)
    network.with_threshold(of_chairs.parameters["threshold"]).save(demo.output / "model.safetensors")

    checkpoint = PROJECT / "checkpoints" / "furniture.safetensors"
    trained = partnet.Model.load(checkpoint)
    furniture = partnet.resolve(replace(common, evaluate=(checkpoint,), baselines=True))
    root = partnet_folder(furniture.category, furniture.generated_shapes, fabric)
    val, test = (partnet.Split(root, furniture, name, fabric) for name in ("val", "test"))
    of_furniture = [partnet.evaluate_model(furniture.embedding, trained, root, val, test, furniture, fabric)]
    of_furniture += partnet.evaluate_baselines(val, test, fabric)

    sections = [
        partnet.section(
            "Real furniture, the checkpoint that comes with the project",
            "The test models were not seen in training. The table compares it with clusters of the positions alone, "
            "whose parameters were picked on the validation models like the network's threshold.",
            of_furniture,
            trained.classes,
            furniture,
        ),
        partnet.section(
            "Generated chairs, trained from scratch just now",
            f"{demo.epochs} epochs of {demo.chairs} chairs on this machine's processor; the test chairs are new ones.",
            [of_chairs],
            network.classes,
            chairs,
            history,
        ),
    ]
    partnet.write_numbers([*of_furniture, of_chairs], trained.classes, furniture, history)
    print(write_results("Parts found in point clouds", sections, furniture))


if __name__ == "__main__":
    main()
