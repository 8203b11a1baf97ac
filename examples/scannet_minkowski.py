"""MinkowskiNet with probabilistic embeddings, and with learnable margins, on ScanNet: train, evaluate, submit, report.

Without --root it writes rooms furnished with open models, in ScanNet's own files, and trains a small network on them.
With --root it reads ScanNet v2 and takes MinkUNet34C on voxels of 2 cm. Both methods are trained on the same backbone,
scenes and schedule; the parameter of each clustering is picked on training scenes that are held out:

    python examples/scannet_minkowski.py
    python examples/scannet_minkowski.py --root /data/scannet
    torchrun --nproc-per-node 4 examples/scannet_minkowski.py --root /data/scannet --precision 16-mixed
    python examples/scannet_minkowski.py --root /data/scannet --evaluate model.safetensors --split test
    python examples/scannet_minkowski.py --evaluate model.safetensors --predict office.ply floor.ply

It needs MinkowskiEngine: make minkowski, or python -m probemb_adapters.networks.minkowski_build.
"""

from __future__ import annotations

import os

# Threads that spin while they wait crawl as soon as anything else runs; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from typing import Any

import tyro
from lightning_fabric import Fabric

from probemb_adapters.experiments.scannet import (
    Evaluation,
    Model,
    Options,
    evaluate_model,
    evaluation_scenes,
    fit_setting,
    fitting_scenes,
    method_names,
    resolve,
    run_prediction,
    train_method,
    training_scenes,
    write_numbers,
    write_page,
)
from probemb_adapters.training import start_fabric
from probemb_lib import ThresholdFit
from probemb_shapes.demo_data import scannet_folder


def run(options: Options, fabric: Fabric) -> None:
    root = options.root or scannet_folder(options.rooms, fabric)
    models: list[tuple[str, Model, ThresholdFit | None, list[Any]]] = []
    if options.evaluate:
        names = method_names(options.evaluate)
        models = [(name, model, None, []) for name, model in names.items()]
        text = f"Models: {', '.join(map(str, options.evaluate))}."
    else:
        data = training_scenes(root, options)
        for method in options.methods:
            model, history = train_method(method, data, options, fabric)
            fit = fit_setting(model, fitting_scenes(root, options), fabric)
            model.about["setting"] = fit.threshold
            if fabric.is_global_zero:
                model.save(options.output / method / "model.safetensors")
            models.append((method, model, fit, history))
        text = f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}."
    scenes = evaluation_scenes(root, options)
    evaluations = []
    for name, model, fit, history in models:
        metric, shown = evaluate_model(name, model, scenes, options, fabric)
        evaluations.append(Evaluation(name, metric, fit, model.about["setting"], history, shown))
    if fabric.is_global_zero:
        if options.split == "test":
            print(f"\nsubmission  {options.output / 'submission'}/*: zip the content of one for ScanNet's server")
            return
        write_numbers(evaluations, options)
        print(write_page(evaluations, options, text))
        if options.submission:
            print(f"submission {options.output / 'submission'}")


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    if options.predict:
        print(run_prediction(options, fabric))
    else:
        run(options, fabric)


if __name__ == "__main__":
    main()
