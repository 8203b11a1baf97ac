"""A picture that moves: the points of a cloud gather into their embeddings and go back as instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from probemb_adapters.files import replaced_file
from probemb_adapters.report.pictures import GREY, ShapeResult, draw_cloud, instance_colors, z_up

_PAUSES = (900, 1200, 2200)  # milliseconds at the input, at the embedding and at the instances
_STEP = 50  # milliseconds


def gathering(
    shape: ShapeResult, path: str | Path, *, pixels: int = 480, steps: int = 24, size: float = 8.0, quality: int = 80
) -> Path:
    """Write an animated WebP of (1 − t) x + t μ, for t from 0 to 1 and back to 0.

    Grey points take the colours of their instances on the way to μ and keep them on the way back, so that it ends with
    what was found. It is repeated for ever.

    Args:
        shape: with means in three dimensions; its ground truth is not looked at.
        path: the file to write.
        pixels: of each side.
        steps: of each way.
        size: of a point, in square points.
        quality: of WebP, up to 100.

    Returns:
        ``path``.

    Raises:
        ValueError: the shape has no means in three dimensions.
    """
    if shape.mean is None or shape.mean.shape[1] != 3:
        got = "none" if shape.mean is None else f"(N, {shape.mean.shape[1]})"
        raise ValueError(f"{shape.name}: expected means (N, 3), got {got}")
    start, end = (z_up(x.detach().cpu().float().numpy(), shape.up) for x in (shape.pos, shape.mean))
    own = np.vstack([instance_colors(len(shape.found)), GREY])[shape.found.label.cpu().numpy()]
    grey = np.broadcast_to((0.6, 0.6, 0.6), own.shape)
    most = np.clip(end, *np.percentile(end, [1, 99], axis=0))  # a few points may lie far out

    def frame(t: float, colored: float, text: str) -> Image.Image:
        figure = Figure(figsize=(4, 4), dpi=pixels / 4)
        axis = figure.add_axes((0, 0, 1, 1), projection="3d")
        pos, around = ((1 - t) * start + t * x for x in (end, most))
        draw_cloud(axis, pos, (1 - colored) * grey + colored * own, size=size, zoom=1.2, around=around)
        figure.text(0.5, 0.03, text, ha="center", fontsize=12)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])

    way = np.linspace(0, 1, steps + 1)
    eased = (3 * way**2 - 2 * way**3).tolist()
    frames = [frame(0, 0, "points")]
    frames += [frame(t, t, "each moves to its μ") for t in eased[1:-1]]
    frames += [frame(1, 1, "embedding: an instance is a spot")]
    frames += [frame(t, 1, "and back") for t in eased[-2:0:-1]]
    frames += [frame(0, 1, "instances found")]
    durations = [_PAUSES[0], *[_STEP] * (steps - 1), _PAUSES[1], *[_STEP] * (steps - 1), _PAUSES[2]]
    path = Path(path)
    with replaced_file(path) as temporary:
        frames[0].save(
            temporary,
            "webp",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            quality=quality,
            method=6,
            minimize_size=True,
        )
    return path
