"""mmdet3d/models."""
