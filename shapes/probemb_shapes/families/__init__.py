"""Generated furniture: seeded families of chairs, tables, lamps and storage furniture with named parts.

For training at any scale without a download: the shapes are written in PartNet's raw layout, with part paths
at PartNet's three levels, and read through `probemb_adapters.partnet.PartNetInstances`. One module a family
(`chair`, `table`, `lamp`, `storage`), each a function from a random generator to a tree of parts (`tree`) whose
leaves are meshes (`primitives`).

    python -m probemb_shapes.families --root .cache/generated --category Chair --shapes 1000 --seed 0
"""

from __future__ import annotations

from probemb_shapes.families.write import FAMILIES, Family, GeneratedReport, generate, write_generated

__all__ = ["FAMILIES", "Family", "GeneratedReport", "generate", "write_generated"]
