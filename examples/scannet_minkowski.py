"""MinkowskiNet with probabilistic embeddings, and with learnable margins, on ScanNet: train, evaluate, submit, report.

Without --root it writes rooms furnished with open models, in ScanNet's own files, and trains a small network on them.
With --root it reads ScanNet v2 and takes MinkUNet34C on voxels of 2 cm. Both methods are trained on the same backbone,
scenes and schedule; the parameter of each clustering is picked on training scenes that are held out:

    python examples/scannet_minkowski.py
    python examples/scannet_minkowski.py --root /data/scannet
    torchrun --nproc-per-node 4 examples/scannet_minkowski.py --root /data/scannet --precision 16-mixed
    python examples/scannet_minkowski.py --root /data/scannet --evaluate model.safetensors --split test
    python examples/scannet_minkowski.py --evaluate model.safetensors --predict office.ply floor.ply
    python examples/scannet_minkowski.py --evaluate model.safetensors --objects other_objects.npz

Sparse convolutions run in plain torch, or on MinkowskiEngine where it is installed (make minkowski).
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from collections.abc import Sequence

import tyro

from probemb_adapters.experiments.scannet import (
    Evaluation,
    Options,
    evaluate_model,
    evaluation_scenes,
    fit_setting,
    fitting_scenes,
    loss_of,
    named_models,
    new_model,
    resolve,
    run_prediction,
    train_model,
    training_scenes,
    write_numbers,
    write_page,
)
from probemb_adapters.networks.engines import pick_engine
from probemb_adapters.training import start_fabric
from probemb_lib import ThresholdFit
from probemb_shapes.demo_data import scannet_folder


def main() -> None:
    # What is not given is chosen for the data: a full training for ScanNet, a few minutes' for the rooms.
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)

    # The user's own scans need a model and nothing else.
    if options.predict:
        print(run_prediction(options, fabric))
        return

    root = options.root or scannet_folder(options.rooms, fabric, options.objects)
    models = named_models(options.evaluate, options.engine)
    text = f"Models: {', '.join(map(str, options.evaluate))}."
    fits: dict[str, ThresholdFit] = {}
    histories: dict[str, Sequence[dict[str, float]]] = {}

    # --- training: both methods on the same scenes

    if not options.evaluate:
        data = training_scenes(root, options)
        for method in options.methods:
            # MinkowskiNet gives a feature a point; the head makes of it a Gaussian around where the point's object
            # has its centre, or an offset and a margin of the point's object; and a score for each class.
            model = new_model(method, options, fabric)
            histories[method] = train_model(model, data, loss_of(model, options), options, fabric)
            models[method] = model
            if fabric.is_global_zero:  # before all that may fail
                model.save(options.output / method / "model.safetensors")
        text = f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}."

    # Each clustering has one parameter, and its objects a least score to be shown. Both are picked on scenes that the
    # network has not seen, so that neither method is favoured and the validation scenes are taken once.
    for name, model in models.items():
        if model.settings.setting is None:
            fits[name], shown_score = fit_setting(model, fitting_scenes(root, options), fabric)
            models[name] = model.with_setting(fits[name].threshold, shown_score)
            if fabric.is_global_zero and not options.evaluate:
                models[name].save(options.output / name / "model.safetensors")

    # --- evaluation, the submission's files on the way

    scenes = evaluation_scenes(root, options)
    evaluations = []
    for name, model in models.items():
        metric, shown = evaluate_model(name, model, scenes, options, fabric)
        fit, history = fits.get(name), histories.get(name, ())
        evaluations.append(Evaluation(name, model.classes, metric, fit, model.setting, history, shown))

    # --- report

    if not fabric.is_global_zero:
        return
    if options.split == "test":  # nobody else has its annotation, so there are no numbers
        print(f"\nsubmission  {options.output / 'submission'}/*: zip the content of one for ScanNet's server")
        return
    write_numbers(evaluations, options, pick_engine(options.engine, fabric.device.type))
    print(write_page(evaluations, options, text))
    if options.submission:
        print(f"submission {options.output / 'submission'}")


if __name__ == "__main__":
    main()
