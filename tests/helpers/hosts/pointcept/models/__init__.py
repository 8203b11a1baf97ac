"""pointcept/models/__init__.py: importing it registers the backbones."""

from pointcept.models import backbones
from pointcept.models.builder import build_model

__all__ = ["backbones", "build_model"]
