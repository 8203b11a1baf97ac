"""The training loop: seeded batches, checkpoints that go on to the same numbers, several processes."""

from probemb_adapters.training.loop import LAST, Losses, Training, gather_in_order, share_of, start_fabric, train

__all__ = ["LAST", "Losses", "Training", "gather_in_order", "share_of", "start_fabric", "train"]
