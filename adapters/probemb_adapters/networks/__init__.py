"""Networks that give features to the heads: PointNet++ and MinkowskiNet, and what they stand on."""
