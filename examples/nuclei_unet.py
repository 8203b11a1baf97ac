"""A U-Net with probabilistic embeddings on fluorescence images: train, fit, evaluate, predict, report.

Without options it trains on data/nuclei, 385 images with 10,778 nuclei that come with the project: 3,000 steps, about
twenty minutes of one core with `--precision bf16-mixed` where the processor has it. `--data` takes any file of that
layout, `--predict` any PNG or TIFF.

    python examples/nuclei_unet.py
    python examples/nuclei_unet.py --evaluate checkpoints/nuclei.safetensors --baselines
    python examples/nuclei_unet.py --evaluate checkpoints/nuclei.safetensors --data my_images.npz
    python examples/nuclei_unet.py --evaluate checkpoints/nuclei.safetensors --predict plate_1.tif plate_2.png
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import tyro

from probemb_adapters.experiments.images.evaluation import evaluate, evaluate_baselines, fit
from probemb_adapters.experiments.images.model import named_models
from probemb_adapters.experiments.images.options import Options, resolve
from probemb_adapters.experiments.images.results import run_prediction, write_results
from probemb_adapters.experiments.images.training import PixelObjective, new_model, train_model
from probemb_adapters.images import read_nuclei, read_sides
from probemb_adapters.training import start_fabric


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)

    # The user's own images need a model and nothing else.
    models = named_models(options.evaluate)
    if options.predict:
        if len(models) != 1:
            raise SystemExit(f"--predict: expected one model to predict with (--evaluate), got {len(models)}")
        (model,) = models.values()
        print(run_prediction(model.to(fabric.device), options))
        return

    # --- data

    # Sides train, val and test, tiles of one field together; a file without a split is a test side as a whole.
    sides = read_sides(read_nuclei(options.data), options.data, options.split)
    fitting = options.fit or options.baselines or not models
    if missing := [s for s in (("train",) if not models else ()) + (("val",) if fitting else ()) if not sides.get(s)]:
        raise SystemExit(f"{options.data}: expected images of the sides {', '.join(missing)}; name them by --split")

    # --- model and training

    history: list[dict[str, float]] = []
    if not models:
        # The U-Net gives a feature a pixel; the head makes of it a Gaussian around where the pixel's nucleus has its
        # centre, how likely the pixel is of any nucleus, and how well it stands for its own.
        model = new_model(options, fabric)
        # Pixels of a nucleus shall be similar to their mean Gaussian, others not (binary cross entropy and log-Dice of
        # the similarities, each nucleus alike, however small).
        history = train_model(model, sides["train"], PixelObjective(model.settings), options, fabric)
        models = {options.embedding: model}

    # --- evaluation, by one process

    if not fabric.is_global_zero:
        return
    test, evaluations = sides["test"], []
    for name, model in models.items():
        model = model.to(fabric.device)
        if history or options.fit:
            # The settings of the clustering are picked on validation; the test side is taken once, with these.
            model, value = fit(model, sides["val"])
            print(f"{name}: AP50 {100 * value:.1f} % on validation with {model.fitted}")
            model.save(options.output / "model.safetensors")
        evaluations.append(evaluate(name, model, test))
    if options.baselines:  # what one has from the foreground alone
        first = next(iter(models.values())).to(fabric.device)
        evaluations += evaluate_baselines(first, sides["val"], test)

    # --- report

    print(write_results("Nuclei found in images", evaluations, test, options, history))


if __name__ == "__main__":
    main()
