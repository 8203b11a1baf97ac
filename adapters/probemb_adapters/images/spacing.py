"""The size of a voxel, as microscopes write it into a TIFF file: Fiji's and ImageJ's metadata, and OME-XML.

read_spacing("cell_01_raw.tif")    # (0.5, 0.1, 0.1), along z, y and x
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from probemb_adapters.files import missing_extra, readable

try:
    import tifffile
except ImportError as error:
    raise missing_extra("images need tifffile", "images", error) from error


def read_spacing(path: str | Path) -> tuple[float, float, float] | None:
    """Distance of slices, rows and columns in the unit of the file, usually micrometres; None where it does not say.

    ImageJ's calibration is read, and `PhysicalSizeZ`, `PhysicalSizeY` and `PhysicalSizeX` of OME-XML where they have
    one unit. The resolution in dots an inch of other TIFFs is that of a screen or printer, and none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a TIFF file")
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with readable(path), tifffile.TiffFile(path) as file:
        if file.ome_metadata:
            sizes = _of_ome(file.ome_metadata)
        elif file.imagej_metadata and "spacing" in file.imagej_metadata:
            tags = file.pages.first.tags
            dots = [tags[name].value if name in tags else (0, 1) for name in ("YResolution", "XResolution")]
            sizes = [float(file.imagej_metadata["spacing"]), *(many / one if one else 0.0 for one, many in dots)]
        else:
            return None
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 and min(sizes) > 0 else None


def _of_ome(text: str) -> list[float]:
    pixels = ElementTree.fromstring(text).find(".//{*}Pixels")
    if pixels is None or len({pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"}) > 1:
        return []
    return [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"]
