"""mmdet3d/models/segmentors."""
