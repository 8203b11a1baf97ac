"""Images and volumes with instances: their files, normalization, augmentation."""

from probemb_adapters.images.nuclei import read_nuclei, read_sides, read_split, write_nuclei
from probemb_adapters.images.pairs import LabelledImage, normalize

__all__ = ["LabelledImage", "normalize", "read_nuclei", "read_sides", "read_split", "write_nuclei"]
