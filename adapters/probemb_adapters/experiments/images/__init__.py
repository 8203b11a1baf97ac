"""Instance segmentation of images: a U-Net with a head a pixel, its training, evaluation and predictions."""
