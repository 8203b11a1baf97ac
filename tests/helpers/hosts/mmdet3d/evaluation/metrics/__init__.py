"""mmdet3d/evaluation/metrics/instance_seg_metric.py: what `InstanceSegMetric` reads, and no evaluation."""

from __future__ import annotations

from typing import Any


class InstanceSegMetric:
    """`process(data_batch, data_samples)` with samples as dicts, then the ids of `dataset_meta` for each instance."""

    dataset_meta: dict[str, Any]

    def __init__(self) -> None:
        self.results: list[Any] = []

    def process(self, data_batch: dict[str, Any], data_samples: list[dict[str, Any]]) -> None:
        for sample in data_samples:
            self.results.append((sample["eval_ann_info"], sample["pred_pts_seg"]))

    def evaluate(self, size: int) -> dict[str, Any]:
        """The real one gives `all_ap` and more; this one the ids and scores that it would score."""
        ids, found = self.dataset_meta["seg_valid_class_ids"], []
        for truth, result in self.results:
            mask = result["pts_instance_mask"].clone().numpy()
            labels, scores = result["instance_labels"].clone().numpy(), result["instance_scores"].clone().numpy()
            if mask.shape != truth["pts_instance_mask"].shape:
                raise ValueError("pts_instance_mask (N,)")
            found += [(ids[labels[i]], float(scores[i]), int((mask == i).sum())) for i in range(mask.max() + 1)]
        return {"found": found}
