"""PointNet++ with probabilistic embeddings on PartNet: train, fit the threshold, evaluate, predict, report.

Without --root it trains on data that comes with the project, in PartNet's own file layout: the open furniture
(category Furniture) or generated shapes (Chair, Table, Lamp, StorageFurniture). With --root it reads PartNet and takes
the settings of the paper:

    python examples/partnet_pointnet2.py
    python examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
    torchrun --nproc-per-node 4 examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
    python examples/partnet_pointnet2.py --evaluate checkpoints/furniture.safetensors --baselines
    python examples/partnet_pointnet2.py --evaluate checkpoints/furniture.safetensors --predict scan.ply shelf.npz
"""

from __future__ import annotations

import os

# Threads that spin while they wait crawl as soon as anything else runs; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from probemb_adapters.experiments.partnet import (
    Options,
    resolve,
    run_evaluation,
    run_prediction,
    run_training,
    section,
    write_numbers,
)
from probemb_adapters.experiments.run import write_results
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import generated_folders, partnet_folder


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)

    # The user's own clouds need a model and nothing else.
    if options.predict:
        print(run_prediction(options, fabric))
        return

    root = options.root or partnet_folder(options.category, options.generated_shapes, fabric)
    if options.evaluate:
        classes, evaluations = run_evaluation(root, options, fabric)
        text, history = f"Models: {', '.join(map(str, options.evaluate))}.", []
    else:
        generated = generated_folders(options.generated_shapes, fabric) if options.add_generated else {}
        model, evaluations, history = run_training(root, options, fabric, generated)
        classes = model.classes
        text = f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}."

    if fabric.is_global_zero:
        write_numbers(evaluations, classes, options, history)
        title = f"{options.category}, level {options.level}"
        page = section(title, text, evaluations, classes, options, history)
        print(write_results("Parts found in point clouds", [page], options))


if __name__ == "__main__":
    main()
