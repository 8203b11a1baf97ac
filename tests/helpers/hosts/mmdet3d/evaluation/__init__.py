"""mmdet3d/evaluation."""
