"""From embeddings to instances: the greedy clustering of the paper, its threshold, refinement, and tiles."""
