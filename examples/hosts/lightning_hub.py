"""Lightning trains, the Hugging Face Hub's mixin saves: PointNet++ on PyG batches of generated shapes.

pip install lightning huggingface_hub
python examples/hosts/lightning_hub.py --folder runs/shapes
"""

from __future__ import annotations

import argparse

import torch
from lightning import Trainer, seed_everything
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from probemb_adapters.hosts.hub import PointNet2Segmentor
from probemb_adapters.hosts.lightning import ProbEmbModule
from probemb_lib import HeadOutput


class OnBatches(nn.Module):
    """The model takes (B, N, 3); PyG's loader gives all points of its graphs in a row."""

    def __init__(self, model: PointNet2Segmentor) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> HeadOutput:
        output: HeadOutput = self.model(batch.pos.view(batch.num_graphs, -1, 3))
        return output


def shape(generator: torch.Generator) -> Data:
    """Three blobs, of two classes."""
    part = torch.arange(128) % 3
    pos = 0.6 * torch.randn((3, 3), generator=generator)[part] + 0.1 * torch.randn((128, 3), generator=generator)
    return Data(pos=pos, instance=part, semantic=1 + (part == 0).long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/shapes")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    seed_everything(0, verbose=False)
    generator = torch.Generator().manual_seed(0)
    train = DataLoader([shape(generator) for _ in range(64)], batch_size=8, shuffle=True)
    val = DataLoader([shape(generator) for _ in range(16)], batch_size=8)

    model = PointNet2Segmentor(num_classes=3, width=0.25, hidden=(64,), min_points=8)
    trainer = Trainer(
        max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(ProbEmbModule(OnBatches(model)), train, val)
    print(f"validation loss {trainer.callback_metrics['val/loss'].item():.3f}")

    model.save_pretrained(args.folder)
    again = PointNet2Segmentor.from_pretrained(args.folder).eval()
    batch = next(iter(val))
    print(f"{len(again.segment(batch.pos.view(batch.num_graphs, -1, 3)))} parts in {batch.num_graphs} shapes")


if __name__ == "__main__":
    main()
