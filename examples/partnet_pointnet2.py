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

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from dataclasses import replace

from probemb_adapters.experiments.partnet import (
    Split,
    evaluate_baselines,
    evaluate_model,
    named_models,
    new_model,
    objective,
    parse_options,
    read_classes_of,
    resolve,
    run_prediction,
    section,
    train_model,
    training_data,
    write_numbers,
)
from probemb_adapters.experiments.run import write_results
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import generated_folders, partnet_folder


def main() -> None:
    # What is not given is as the model to evaluate has it, or chosen for the data: the paper's settings for PartNet, a
    # few minutes' for the rest.
    options = parse_options(__doc__)
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

    # --- data

    root = options.root or partnet_folder(options.category, options.generated_shapes, fabric)
    models = named_models(options.evaluate)
    if models:  # trained with classes or without: so they are compared with the ground truth
        first = next(iter(models.values()))
        options = resolve(replace(options, class_agnostic=first.settings.class_agnostic))
    else:
        generated = generated_folders(options.generated_shapes, fabric) if options.add_generated else {}
        data, weights = training_data(root, options, generated)
    classes = read_classes_of(root, options)

    # --- model and training

    history: list[dict[str, float]] = []
    text = f"Models: {', '.join(map(str, options.evaluate))}."
    if not models:
        # PointNet++ gives a feature a point; the head makes of it a Gaussian around where the point's part has its
        # centre, and a score for each class.
        model = new_model(classes, options, fabric)
        # Points of a part shall be similar to the part's mean Gaussian, others not (binary cross entropy and log-Dice
        # of the similarities), scores be high near the centres, and the Gaussians small (entropy).
        loss_function = objective(options)
        history = train_model(model, data, loss_function, options, fabric, weights=weights)
        if fabric.is_global_zero:  # before an evaluation that may fail; its threshold comes with that
            model.save(options.output / "model.safetensors")
        models = {options.embedding: model}
        text = f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}."

    # --- evaluation

    # Each process reads its share of the shapes, once for all models.
    val, test = Split(root, options, "val", fabric), Split(root, options, "test", fabric)
    evaluations = []
    for name, model in models.items():
        if model.classes != classes:
            raise SystemExit(f"{name} knows the classes {model.classes}, but the data have {classes}")
        model = model.with_clustering(options)
        # The threshold of the clustering is picked on validation; the test split is taken once, with that one.
        evaluation = evaluate_model(name, model, root, val, test, options, fabric)
        evaluations.append(evaluation)
        if not options.evaluate and fabric.is_global_zero:
            model.with_threshold(**evaluation.parameters).save(options.output / "model.safetensors")
    if options.baselines:  # what one has without a network: clusters of the positions
        evaluations += evaluate_baselines(val, test, fabric)

    # --- report

    if fabric.is_global_zero:
        write_numbers(evaluations, classes, options, history)
        title = f"{options.category}, level {options.level}"
        page = section(title, text, evaluations, classes, options, history)
        print(write_results("Parts found in point clouds", [page], options))


if __name__ == "__main__":
    main()
