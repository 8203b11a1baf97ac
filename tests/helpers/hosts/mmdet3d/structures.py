"""mmdet3d/structures: `PointData` and `Det3DDataSample`, data elements of mmengine."""

from __future__ import annotations

from typing import Any


class BaseDataElement:
    """mmengine/structures/base_data_element.py: fields by attribute, `set_data`, `to_dict`."""

    def __init__(self, **fields: Any) -> None:
        self.set_data(fields)

    def set_data(self, data: dict[str, Any]) -> None:
        if not isinstance(data, dict):
            raise TypeError(f"data should be a dict, got {type(data)}")
        for name, value in data.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        return {k: v.to_dict() if isinstance(v, BaseDataElement) else v for k, v in vars(self).items()}


class PointData(BaseDataElement):
    pass


class Det3DDataSample(BaseDataElement):
    pass
