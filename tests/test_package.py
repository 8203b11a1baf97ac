"""The package as a whole: what it imports, what it promises, and what is in the wheel."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from example_runs import ENVIRONMENT
from paths import PROJECT

import probemb_lib

ROOT = PROJECT
CORE, ADAPTERS, SHAPES = ROOT / "probemb_lib", ROOT / "adapters/probemb_adapters", ROOT / "shapes/probemb_shapes"
CORE_FILES = sorted(CORE.rglob("*.py"))
LIBRARY_FILES = CORE_FILES + sorted(ADAPTERS.rglob("*.py")) + sorted(SHAPES.rglob("*.py"))
CORE_DEPENDENCIES = {"torch", "numpy", "scipy"}

PUBLIC = [
    "CenterAwareLoss",
    "DenseHead",
    "DenseOutput",
    "DeterministicHead",
    "EntropyRegularizer",
    "Finding",
    "GaussianEmbedding",
    "HeadOutput",
    "InstanceBCELoss",
    "InstanceIndex",
    "Instances",
    "LabelConvention",
    "LearnableMarginHead",
    "LearnableMarginLoss",
    "LogDiceLoss",
    "MarginInstances",
    "MarginOutput",
    "ProbabilisticEmbeddingLoss",
    "ProbabilisticHead",
    "ScoreCrossEntropyLoss",
    "SeedMSELoss",
    "SuggestedSettings",
    "ThresholdFit",
    "aggregate_instances",
    "check_batch",
    "cluster_tiles",
    "convert",
    "cosine_similarity",
    "dense_targets",
    "fit_threshold",
    "functional",
    "greedy_cluster",
    "index_instances",
    "join_instances",
    "label_image",
    "labels",
    "log_bhattacharyya",
    "log_bhattacharyya_paired",
    "margin_cluster",
    "metrics",
    "object_csv",
    "object_table",
    "refine_instances",
    "suggest_settings",
    "window_predictor",
]
FUNCTIONAL = [
    "center_aware",
    "entropy_regularizer",
    "instance_bce",
    "learnable_margin",
    "log_dice",
    "score_cross_entropy",
    "seed_mse",
]


# --- public names


def test_public_names() -> None:
    """Changing the list is changing the interface: CHANGELOG.md and docs/api.md change with it."""
    assert probemb_lib.__all__ == sorted(PUBLIC)
    assert probemb_lib.functional.__all__ == sorted(FUNCTIONAL)
    assert re.fullmatch(r"\d+\.\d+\.\d+", probemb_lib.__version__)


def public_objects() -> list[tuple[str, object]]:
    modules = [probemb_lib, probemb_lib.functional, probemb_lib.metrics]
    names = [(f"{m.__name__}.{name}", getattr(m, name)) for m in modules for name in m.__all__]
    values = {
        **vars(probemb_lib.convert),
        **{name: getattr(probemb_lib.labels, name) for name in probemb_lib.labels.__all__},
    }
    names += [
        (f"{value.__module__}.{name}", value)
        for name, value in values.items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("probemb_lib.")
        if inspect.isclass(value) or inspect.isfunction(value)
    ]
    return names


@pytest.mark.parametrize(("name", "value"), public_objects(), ids=[name for name, _ in public_objects()])
def test_docstrings(name: str, value: object) -> None:
    """Written for it, not inherited from tuple or Module; public methods too."""
    own = value.__doc__ if isinstance(value, ModuleType) or callable(value) else None
    assert own is not None
    assert len(own.strip()) > 20
    if not inspect.isclass(value):
        return
    generated = f"{value.__name__}("  # dataclass and NamedTuple write their signature
    assert not own.startswith(generated), f"{name} has no docstring of its own"
    for member, function in vars(value).items():
        # Those that NamedTuple writes have no source of ours.
        if member.startswith("_") or not (inspect.isfunction(function) or isinstance(function, property)):
            continue
        function = function.fget if isinstance(function, property) else function
        # What forward takes is told by the class where the loss is, by the function of the same name.
        if member not in ("extra_repr", "forward") and function.__module__ == value.__module__:
            assert function.__doc__, f"{name}.{member} has no docstring"


def test_annotations() -> None:
    """Every public function says what it takes and gives; the marker lets type checkers read it."""
    assert (CORE / "py.typed").is_file()
    assert (ADAPTERS / "py.typed").is_file()
    for name, value in public_objects():
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter.name}"
                assert parameter.kind != inspect.Parameter.VAR_KEYWORD, f"{name}: {parameter.name}"


# --- imports


def imported_modules(file: Path, *, deferred: bool = True) -> set[str]:
    """Absolute names of what a file imports; with ``deferred`` also inside functions and under TYPE_CHECKING."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if deferred else list(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import in line {node.lineno}"
            # `from package import name` may import a module.
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_name(file: Path) -> str:
    parts = file.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def core_graph() -> dict[str, set[str]]:
    """Which core module imports which others, when it is imported.

    A package is left out where one of its modules is named: `from probemb_lib.metrics.partnet import PartNetAP`.
    """
    modules = {module_name(file): file for file in CORE_FILES}
    return {name: (imported_modules(file, deferred=False) & set(modules)) - {name} for name, file in modules.items()}


def test_core_imports_only_its_dependencies() -> None:
    allowed = CORE_DEPENDENCIES | set(sys.stdlib_module_names) | {"probemb_lib"}
    for file in CORE_FILES:
        if "_triton" in file.parts:  # never imported unless it will run, see the tests of loaded modules
            continue
        top = {name.split(".")[0] for name in imported_modules(file)}
        assert top <= allowed, f"{file}: {sorted(top - allowed)}"


def test_core_is_without_cycles() -> None:
    graph = core_graph()
    assert "probemb_lib.gaussian" in graph["probemb_lib.clustering.greedy"]  # the graph is not empty
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path, name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_direction_of_imports() -> None:
    """gaussian ← similarity, head, aggregate ← losses, cluster: no layer knows those above it."""
    graph = core_graph()
    layers = {
        "probemb_lib.gaussian": 0,
        "probemb_lib.positions": 0,
        "probemb_lib.segments": 0,
        "probemb_lib.labels": 0,
        "probemb_lib.labels.values": -3,
        "probemb_lib.labels.convention": -2,
        **dict.fromkeys((f"probemb_lib.labels.{name}" for name in ("presets", "masks", "encodings", "results")), -1),
        "probemb_lib.convert": 0,
        "probemb_lib.clustering.grid": 0,
        "probemb_lib.twins": -1,
        "probemb_lib.similarity": 1,
        "probemb_lib.head": 1,
        "probemb_lib.aggregate": 1,
        "probemb_lib.instances": 1,
        "probemb_lib.clustering._index": 1,
        "probemb_lib.clustering.inputs": 1,
        "probemb_lib.margin.head": 1,
        "probemb_lib._tile_eager": 1,
        "probemb_lib._tile_compiled": 1,
        "probemb_lib.similarity_sums": 2,
        "probemb_lib.margin.lovasz": 2,
        "probemb_lib._dense_inputs": 1,
        "probemb_lib.dense": 2,
        "probemb_lib.dense_labels": 2,
        "probemb_lib.dense_objects": 2,
        "probemb_lib.losses": 3,
        "probemb_lib.clustering.refine": 2,
        "probemb_lib.clustering.greedy": 3,
        "probemb_lib.margin.cluster": 3,
        "probemb_lib.clustering.fit": 4,
        "probemb_lib.clustering.tiles": 4,
    }

    def layer(name: str) -> int | None:
        return next((layers[n] for n in (name, name.rpartition(".")[0]) if n in layers), None)

    assert set(layers) <= set(graph)
    for name, others in graph.items():
        for other in others:
            here, there = layer(name), layer(other)
            if here is not None and there is not None and here < 3:
                assert there < here or (there == here == 1), f"{name} imports {other}"
    for name in ("gaussian", "positions", "convert", "clustering.grid", "twins"):
        assert not graph[f"probemb_lib.{name}"], f"{name} stands alone"
    assert graph["probemb_lib.segments"] == {"probemb_lib.twins"}
    assert graph["probemb_lib.clustering._index"] == {"probemb_lib.clustering.grid", "probemb_lib.clustering.inputs"}
    for name, others in graph.items():
        assert "probemb_lib" not in others, f"{name} imports the whole package"
        if name.startswith("probemb_lib.metrics"):
            assert all(other.startswith("probemb_lib.metrics") for other in others), f"{name} imports {others}"
        if name not in ("probemb_lib", *(f"probemb_lib.clustering{module}" for module in ("", ".fit", ".tiles"))):
            assert "probemb_lib.clustering.greedy" not in others, f"{name} imports the clustering"
            assert "probemb_lib.functional" not in others, f"{name} imports the functions of the losses"


PACKAGES = {CORE: CORE.parent, ADAPTERS: ADAPTERS.parent, SHAPES: SHAPES.parent}


def foreign_private_names(file: Path, root: Path) -> list[str]:
    """Private modules and names that a file takes from another folder; the twins' folder `_triton` serves its package.

    ``root``: the folder that the package lies in.
    """
    folder = file.parent.relative_to(root).parts
    found = []
    for name in sorted(imported_modules(file)):
        parts = name.split(".")
        private = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
        if parts[0] != folder[0] or not private:
            continue
        home = tuple(parts[: private[0]])
        if not (root / Path(*home)).is_dir():  # a name in a module
            home = home[:-1]
        twins = parts[private[0]] == "_triton" and not any(part.startswith("_") for part in parts[private[0] + 1 :])
        if home != folder and not twins:
            found.append(name)
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_private_name_crosses_folders(package: Path) -> None:
    files = sorted(package.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        assert foreign_private_names(file, PACKAGES[package]) == [], file


def test_private_names_are_seen(tmp_path: Path) -> None:
    (tmp_path / "package" / "room").mkdir(parents=True)
    (tmp_path / "package" / "head.py").touch()
    file = tmp_path / "package" / "room" / "file.py"
    lines = ["from package.head import _branch", "import package._index", "from package.room._own import name"]
    file.write_text("\n".join(lines))
    assert foreign_private_names(file, tmp_path) == ["package._index", "package.head._branch"]


ROOMS = {  # what each may import of the project beside itself; every room may import the core
    "baselines": set(),
    "clouds": {"files"},
    "files": set(),
    "passive_threads": set(),
    "partnet": {"clouds", "files"},
    "scannet": {"clouds", "files", "networks"},  # the voxels of points
    "networks": {"files"},
    "training": {"files"},
    "images": {"files"},
    "hosts": {"networks"},
    "report": {"clouds", "files"},
    "experiments": {"baselines", "clouds", "files", "images", "networks", "partnet", "report", "scannet", "training"},
    "cli": {"clouds", "experiments", "files", "images", "passive_threads", "training"},
}


def test_rooms_of_the_adapters() -> None:
    """Files and clouds at the ground, data sets, networks, training and report beside each other, experiments above,
    the command on top; nothing of the demo data's makers."""
    rooms = {path.stem for path in ADAPTERS.iterdir() if not path.name.startswith("_") and path.suffix in ("", ".py")}
    assert rooms == set(ROOMS)
    for room, allowed in ROOMS.items():
        path = ADAPTERS / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            names = imported_modules(file)
            assert not {name for name in names if name.split(".")[0] == "probemb_shapes"}, file
            others = {name.split(".")[1] for name in names if name.startswith("probemb_adapters.")} - {room}
            assert others <= allowed, f"{file} imports {sorted(others - allowed)}"


def test_the_core_and_the_shapes_know_no_room_above() -> None:
    for file in CORE_FILES:
        assert not {n for n in imported_modules(file) if n.split(".")[0] in ("probemb_adapters", "probemb_shapes")}
    for file in sorted(SHAPES.rglob("*.py")):
        above = {n for n in imported_modules(file) if n.startswith("probemb_adapters.experiments")}
        assert not above, f"{file} imports {sorted(above)}"


def test_examples_import_no_example() -> None:
    """Nor does anything else: what is shared is in the packages."""
    scripts = {file.stem for folder in ("examples", "studies") for file in (PROJECT / folder).glob("*.py")}
    assert {"partnet_pointnet2", "demo", "ablation"} <= scripts
    folders = ("examples", "studies", "probemb_lib", "adapters", "shapes")
    for file in (file for folder in folders for file in (PROJECT / folder).rglob("*.py")):
        for name in imported_modules(file):
            assert name.partition(".")[0] not in scripts, f"{file}: imports the script {name}"


IMPORT = """
import json, sys
import torch, numpy, scipy
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_loads_nothing_else() -> None:
    """Neither an optional package, nor triton, nor the compiler of torch: importing takes no time and no GPU."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT.format(module="probemb_lib")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    loaded = json.loads(result.stdout)
    assert "probemb_lib.clustering.greedy" in loaded
    top = {name.split(".")[0] for name in loaded}
    assert top <= {"probemb_lib", *CORE_DEPENDENCIES, *sys.stdlib_module_names}, sorted(top)
    assert not [name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor", "probemb_lib._triton"))]


# --- style


def calls(tree: ast.AST) -> list[tuple[str, int]]:
    """(name, line) of each call `name(…)` or `….name(…)`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                found.append((node.func.id, node.lineno))
            elif isinstance(node.func, ast.Attribute):
                found.append((f".{node.func.attr}", node.lineno))
    return found


def complaints(source: str, *, core: bool) -> list[str]:
    """What the house style does not allow in library code."""
    tree = ast.parse(source)
    forbidden = {"print", "breakpoint", "eval", "exec", ".cuda"} if core else {"breakpoint", "eval", "exec", ".cuda"}
    bad = [f"line {line}: {name}(" for name, line in calls(tree) if name in forbidden]
    bad += [
        f"line {node.lineno}: **{node.args.kwarg.arg}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg is not None
    ]
    return bad


@pytest.mark.parametrize("file", LIBRARY_FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_style(file: Path) -> None:
    """No print in the core (a command of an adapter may), no `.cuda()`, no `**kwargs`."""
    assert complaints(file.read_text(encoding="utf-8"), core=file in CORE_FILES) == []


def test_style_can_fail() -> None:
    source = "def f(x, **kwargs):\n    print(x)\n    return x.cuda()\n"
    assert len(complaints(source, core=True)) == 3
    assert len(complaints(source, core=False)) == 2


def test_every_file_says_what_it_is() -> None:
    for file in LIBRARY_FILES:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file} has no docstring"


def test_the_oldest_versions_are_the_ones_that_are_tested() -> None:
    """What pyproject.toml declares is what `make versions` installs."""
    project, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "Makefile"))
    (oldest,) = re.findall(r"^OLDEST := (.*)$", makefile, re.M)
    (dependencies,) = re.findall(r"^dependencies = \[(.*)\]", project, re.M)
    declared = re.findall(r'"([a-z]+)>=([\d.]+)"', dependencies)
    assert [name for name, _ in declared] == ["torch", "numpy", "scipy"]
    assert oldest.split() == [f"{name}=={version}" for name, version in declared]
    (python,) = re.findall(r'requires-python = ">=([\d.]+)"', project)
    assert f"python{python}" in makefile


# --- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is written beside the sources."""
    pytest.importorskip("hatchling")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("probemb_lib", "adapters", "shapes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "data").mkdir()
    (source / "data" / "large.npz").write_bytes(b"0")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    files = {name for name in names if ".dist-info/" not in name}
    expected = {file.relative_to(ROOT).as_posix() for file in CORE.rglob("*.py")}
    expected |= {file.relative_to(ROOT / "adapters").as_posix() for file in ADAPTERS.rglob("*.py")}
    expected |= {file.relative_to(ROOT / "shapes").as_posix() for file in SHAPES.rglob("*.py")}
    expected |= {f"{package}/py.typed" for package in ("probemb_lib", "probemb_adapters", "probemb_shapes")}
    expected |= {"probemb_adapters/report/page.css", "probemb_adapters/report/page.js"}
    assert expected <= files
    assert {name.split("/")[0] for name in files} == {"probemb_lib", "probemb_adapters", "probemb_shapes"}
    assert any(name.endswith("LICENSE") for name in names)
    assert f"Version: {probemb_lib.__version__}" in metadata
    assert "License-Expression: MIT" in metadata
    assert "# probemb_lib" in metadata
    assert re.findall(r"\]\((?!https:).*?\)", metadata) == []  # leads nowhere on the page of an index
    required = [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    core = {re.split(r"[^A-Za-z0-9_-]", r)[0] for r in required if "extra ==" not in r}
    assert core == CORE_DEPENDENCIES


def test_sdist_contents(tmp_path: Path) -> None:
    """Sources, tests and examples, but not the open models, images and weights that come with a clone."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (built,) = tmp_path.iterdir()
    assert built.name == f"probemb_lib-{probemb_lib.__version__}.tar.gz"
    assert built.stat().st_size < 15e6
    with tarfile.open(built) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CITATION.cff", "examples/demo.py", "checkpoints/README.md", "docs/index.md"} <= files
    folders = ("probemb_lib", "adapters", "shapes", "tests")
    assert {p.relative_to(ROOT).as_posix() for folder in folders for p in (ROOT / folder).rglob("*.py")} <= files
    assert any(name.startswith("tests/data/") for name in files)
    assert not [name for name in files if name.startswith("data/") or name.endswith(".safetensors")]


def distributions(names: set[str]) -> set[str]:
    """Installed distributions that some need, theirs included; extras are left out."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        found.add(name)
        needed = {re.split(r"[^A-Za-z0-9._-]", r, maxsplit=1)[0] for r in requires if "extra ==" not in r}
        todo |= needed - found
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with the wheel, torch, numpy, scipy and what these need; nothing else."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in distributions(CORE_DEPENDENCIES):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return site


TRAIN = """
import sys
sys.path.insert(0, {site!r})
import importlib.util
for name in ("torch_geometric", "h5py", "tqdm", "matplotlib", "hypothesis", "pytest"):
    if importlib.util.find_spec(name) is not None:
        raise SystemExit(name + " should not be visible here")
import torch
from probemb_lib import ProbabilisticEmbeddingLoss, ProbabilisticHead, greedy_cluster
import probemb_lib
if not probemb_lib.__file__.startswith({site!r}):
    raise SystemExit("not the wheel: " + probemb_lib.__file__)

torch.manual_seed(0)
features, positions = torch.randn(64, 16), torch.rand(64, 3)
batch = torch.arange(64) // 32
instance, semantic = torch.arange(64) % 4, torch.arange(64) % 2 + 1
head = ProbabilisticHead(16, num_classes=3)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
values = []
for _ in range(8):
    output = head(features, positions, batch)
    losses = ProbabilisticEmbeddingLoss()(output, instance, semantic, batch)
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    values.append(losses["loss"].item())
if not values[-1] < values[0]:
    raise SystemExit("the loss did not fall: " + str(values))
found = greedy_cluster(output.embedding, output.probabilities, batch=batch)
print(len(found), tuple(found.label.shape))

import probemb_adapters.networks.pointnet2  # needs torch and scipy alone
try:
    import probemb_adapters.partnet
except ImportError as error:
    print(error)
"""


def test_wheel_works_without_extras(installed: Path) -> None:
    """A training step and clustering in a fresh interpreter; an adapter says which extra it wants."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", TRAIN.format(site=str(installed))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    clusters, message = result.stdout.strip().split("\n")
    assert re.fullmatch(r"[1-9]\d* \(64,\)", clusters)
    assert 'pip install -e ".[partnet]"' in message


COMMAND = """
import importlib, pkgutil, sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
import probemb_adapters.cli.main
import probemb_adapters.report.page
import probemb_adapters.experiments.{room} as room
for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
"""
OF_OTHER_EXTRAS = ("sklearn", "tensorboard", "torchmetrics", "lightning", "huggingface_hub", "pye57", "MinkowskiEngine")
OF_IMAGES = ("monai", "imageio", "tifffile")


@pytest.mark.parametrize(
    ("room", "missing"), [("own_clouds", (*OF_OTHER_EXTRAS, *OF_IMAGES)), ("images", OF_OTHER_EXTRAS)]
)
def test_the_command_needs_the_extras_of_its_page_alone(room: str, missing: tuple[str, ...]) -> None:
    """`cli` for clouds, and `images` for images, in a fresh interpreter."""
    script = COMMAND.format(missing=missing, room=room)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert result.returncode == 0, result.stderr


SEGMENT = """
import sys
sys.path.insert(0, {site!r})
import torch
from torch_geometric.data import Data
from probemb_adapters.experiments.partnet import Model
import probemb_adapters
if not probemb_adapters.__file__.startswith({site!r}):
    raise SystemExit("not the wheel: " + probemb_adapters.__file__)

positions = torch.nn.functional.normalize(torch.randn(512, 3, generator=torch.Generator().manual_seed(0)))
model = Model.load({checkpoint!r})
embedding, probabilities = model.predict(Data(pos=positions))
found = model.cluster(embedding, probabilities)
print(len(found), tuple(found.label.shape), tuple(embedding.mean.shape), model.classes)
"""


def test_wheel_loads_a_checkpoint_and_segments_a_cloud(installed: Path) -> None:
    """The code of the wheel, the extras of this environment, no clone."""
    checkpoint = str(PROJECT / "checkpoints" / "furniture.safetensors")
    result = subprocess.run(
        [sys.executable, "-I", "-c", SEGMENT.format(site=str(installed), checkpoint=checkpoint)],
        capture_output=True,
        text=True,
        check=False,
        cwd=installed,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert re.fullmatch(r"[1-9]\d* \(512,\) \(512, 3\) \('part',\)", result.stdout.strip())


def test_no_page_or_message_sends_to_an_index() -> None:
    """The library is installed from a clone or a wheel."""
    kinds = ("*.md", "*.py", "Makefile", "*.toml")
    files = [p for kind in kinds for p in PROJECT.rglob(kind) if not {".venv", ".cache"} & set(p.parts)]
    wrong = re.compile(r"pip install (-\w+ )*[\"']?probemb[-_]lib(?!-[\d*])")
    assert [str(p) for p in files if wrong.search(p.read_text(encoding="utf-8"))] == []
