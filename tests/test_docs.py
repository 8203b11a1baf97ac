"""The pages: snippets run; links, files, commands and names exist; quoted output is what the command prints."""

from __future__ import annotations

import csv
import doctest
import importlib
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from paths import PROJECT

import probemb_lib
import probemb_lib.functional

ROOT = PROJECT
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PAGES = [*DOCS, *NOTEBOOKS, *(p for p in sorted(ROOT.glob("*.md")))]
TEST_CONVERT_RUNS = "tensors.md"
CACHE = ".cache/furniture"  # as the pages name it
ROOMS = ".cache/rooms"
LABELLED = "labelled/"
PLANTS = 'read_clouds("plants")'
STEPS = "STEPS = 300"  # of the tutorial's training; two show that it runs


def text_of(page: Path) -> str:
    """A page; of a notebook what is not code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return text


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), flags=re.MULTILINE | re.DOTALL)


def snippets(language: str) -> list[object]:
    return [
        pytest.param(page, block, id=f"{page.relative_to(ROOT).with_suffix('')}-{i}")
        for page in [ROOT / "README.md", *DOCS]
        if page.name != TEST_CONVERT_RUNS
        for i, block in enumerate(blocks_of(page, language))
    ]


by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# --- snippets


@pytest.fixture(scope="module")
def furniture_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the furniture under the name that the pages use, and what the command prints of it."""
    pytest.importorskip("h5py")
    from probemb_shapes.furniture import write_furniture

    folder = tmp_path_factory.mktemp("docs")
    return folder, str(write_furniture(ROOT / "data" / "furniture_parts", folder / CACHE))


@pytest.fixture(scope="module")
def rooms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with coarse rooms under the name that the pages use."""
    from probemb_shapes.rooms import write_rooms

    folder = tmp_path_factory.mktemp("rooms")
    write_rooms(ROOT / "data" / "scan_objects", folder / ROOMS, scenes=5, cameras=2, spacing=0.1)
    return folder


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Path:
    """A folder with scans as CloudCompare saves merged clouds: four objects, and points that nobody labelled."""
    from plyfile import PlyData, PlyElement

    (tmp_path / LABELLED).mkdir()
    fields = [(axis, "f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    vertex = np.zeros(500, dtype=[*fields, ("scalar_Original_cloud_index", "f4")])
    vertex["x"], vertex["scalar_Original_cloud_index"] = np.linspace(0, 5, 500), np.arange(500) // 100
    for name in ("hall1_00", "hall1_01", "hall2_00", "hall3_00"):
        PlyData([PlyElement.describe(vertex, "vertex")]).write(tmp_path / LABELLED / f"{name}.ply")
    return tmp_path


@pytest.fixture
def plants_folder(tmp_path: Path) -> Path:
    """A folder with some plants under the name that the pages use."""
    from probemb_shapes.plants import write_plants

    write_plants(tmp_path / "plants", 6, points=1_100)
    return tmp_path


@pytest.mark.parametrize(("page", "code"), snippets("python"))
def test_python_snippets_run(
    page: Path, code: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "torch_geometric" in code or "probemb_adapters.partnet" in code:
        pytest.importorskip("torch_geometric")
    folder = request.getfixturevalue("tmp_path")  # snippets may write
    if CACHE in code:
        folder = request.getfixturevalue("furniture_report")[0]
    elif ROOMS in code:
        folder = request.getfixturevalue("rooms_folder")
    elif LABELLED in code:
        folder = request.getfixturevalue("labelled_folder")
    elif PLANTS in code:
        folder = request.getfixturevalue("plants_folder")
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    exec(compile(code.replace(STEPS, "STEPS = 2"), str(page), "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize(("page", "code"), snippets("pycon"))
def test_console_snippets_print_what_they_say(page: Path, code: str) -> None:
    test = doctest.DocTestParser().get_doctest(code, {}, str(page), None, None)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test)
    assert results.attempted > 0
    assert results.failed == 0


def test_furniture_table_is_the_output_of_the_command(furniture_report: tuple[Path, str]) -> None:
    tables = [block for block in blocks_of(ROOT / "docs" / "partnet.md", "text") if "shapes" in block.split()]
    assert [table.rstrip("\n") for table in tables] == [furniture_report[1]]


def test_rooms_table_has_the_models_of_the_source() -> None:
    """The rooms themselves take a minute to write; what they are furnished from is known at once."""
    from probemb_shapes.rooms.models import SPLITS, Models
    from probemb_shapes.rooms.simple import SIMPLE_CLASSES

    (table,) = [block for block in blocks_of(ROOT / "docs" / "scannet.md", "text") if "instances" in block.split()]
    quoted = re.findall(r"^(\w[\w ]*?) {2,}(\d+) +(\d+) +(yes)? +\d+ +\d+$", table, flags=re.MULTILINE)
    counts = Models(ROOT / "data" / "scan_objects").counts()
    assert quoted == [
        (name, *(str(count[split]) for split in SPLITS), "yes" if name in SIMPLE_CLASSES else "")
        for name, count in counts.items()
    ]


def test_scannet_table_has_the_numbers_of_the_paper() -> None:
    with (ROOT / "adapters/probemb_adapters/experiments/paper/scannet_table6.csv").open(newline="") as file:
        paper = [[row[f"val_{key}"] for key in ("map", "ap50", "ap25")] for row in csv.DictReader(file)]
    rows = re.findall(r"^\|.*\(paper\) \| (.*) \|$", text_of(ROOT / "docs" / "scannet.md"), flags=re.MULTILINE)
    assert [row.split(" | ") for row in rows] == paper[-2:]


# --- links, files, commands


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ +(.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)
    return broken


@by_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading, with 1 − κ\n[a](#a-heading-with-1--κ) [b](#b) [c](c.md) [d](https://d.org)", "utf-8")
    assert broken_links(page) == ["#b", "c.md"]


def missing_files(text: str) -> list[str]:
    """Files of this repository, such as `tests/test_docs.py`, that a page names and that are not there."""
    names = re.findall(r"(?<![\w/{}.-])((?:[\w-]+/)*[\w.-]+\.(?:py|md|toml|cff))\b", text)
    return sorted({name for name in names if not ((ROOT / name).exists() or (ROOT / "docs" / name).exists())})


@by_page
def test_files_exist(page: Path) -> None:
    assert missing_files(text_of(page)) == []


def test_a_missing_file_is_found() -> None:
    assert missing_files("`tests/test_docs.py`, `no/such.py` and `such.md`") == ["no/such.py", "such.md"]


@by_page
def test_make_targets_exist(page: Path) -> None:
    blocks = "\n".join([*blocks_of(page, "sh"), *re.findall(r"`(make [^`]+)`", prose_of(page))])
    named = re.findall(r"^make ([\w-]+)", blocks, flags=re.MULTILINE)
    if not named:
        return
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(named) <= targets


# --- names


def resolve(name: str) -> object:
    """The object of a dotted name: the longest importable prefix, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(f"no module named {name}")


@by_page
def test_dotted_names_resolve(page: Path) -> None:
    for name in sorted(set(re.findall(r"\bprobemb_(?:lib|adapters)(?:\.\w+)+", text_of(page)))):
        if name.startswith("probemb_adapters."):
            pytest.importorskip("torch_geometric")
        resolve(name)


def test_a_wrong_name_is_found() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        resolve("probemb_lib.metrics.no_such_name")
    with pytest.raises(ModuleNotFoundError):
        resolve("no_such_package.name")


def test_api_page_has_every_public_name() -> None:
    page = text_of(ROOT / "docs" / "api.md")
    listed = set(re.findall(r"^\.\. auto(?:class|function):: (\S+)$", page, flags=re.MULTILINE))
    modules = set(re.findall(r"^\.\. automodule:: (\S+)$", page, flags=re.MULTILINE))
    for module in (probemb_lib, probemb_lib.functional, probemb_lib.metrics):
        for name in module.__all__:
            found = getattr(module, name)
            if not isinstance(found, ModuleType):
                assert f"{module.__name__}.{name}" in listed or found.__module__ in modules


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = [
        name
        for page in DOCS
        for names in re.findall(r"^```\{toctree\}\n.*?\n\n(.*?)^```$", text_of(page), re.M | re.S)
        for name in names.split()
    ]
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in [*DOCS, *NOTEBOOKS]}
    assert sorted(contents) == sorted(pages - {"index"})


def test_citation_and_changelog_have_the_version() -> None:
    citation, changes = ((ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    assert re.findall(r"^version: (.+)$", citation, flags=re.MULTILINE) == [probemb_lib.__version__]
    (released,) = re.findall(r"^date-released: (.+)$", citation, flags=re.MULTILINE)
    assert re.findall(r"^## \[(\d.*)\] - (.+)$", changes, flags=re.MULTILINE)[0] == (probemb_lib.__version__, released)
