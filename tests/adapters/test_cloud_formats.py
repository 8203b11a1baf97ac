"""Every format of clouds that is read: what is in it, what comes back out, and what is said of broken files."""

from __future__ import annotations

import codecs
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import laspy
import numpy as np
import pye57
import pytest
import torch
from cloud_files import (
    FORMATS,
    INSTANCE,
    LOCAL,
    POS,
    RGB,
    SEMANTIC,
    Format,
    N,
    las,
    npy,
    npz,
    ply,
    structured,
    text,
)
from plyfile import PlyData, PlyElement

from probemb_adapters.clouds import Cloud, cloud_files, far_offset, read_clouds, write_instances
from probemb_adapters.clouds.read import ENDINGS
from probemb_lib import GaussianEmbedding, Instances


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def format(request: pytest.FixtureRequest) -> Format:
    return request.param


def found_by_hand(label: np.ndarray[Any, Any]) -> tuple[Instances, GaussianEmbedding]:
    """Instances by their labels, with a score and a σ that are known."""
    instances = int(label.max()) + 1
    some = torch.arange(instances)
    x = GaussianEmbedding(torch.zeros(len(label), 3), torch.linspace(-1, 0, len(label))[:, None].repeat(1, 3))
    return Instances(
        torch.from_numpy(label).long(), some + 7, 0.5 + some / 10, some, 0 * some, x.select(some), 0 * some
    ), x


LABEL = np.arange(N) % 4 - 1
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)


def write_found(path: Path, cloud: Cloud) -> list[Path]:
    found, x = found_by_hand(LABEL)
    return write_instances(path, cloud, found, x, COLORS)


def test_every_format_there_and_back(format: Format, tmp_path: Path) -> None:
    path = tmp_path / format.name
    format.write(path)
    (cloud,) = read_clouds(path, columns=format.columns)
    assert cloud.name == "a"
    assert cloud.pos.dtype == np.float64
    np.testing.assert_allclose(cloud.pos, POS, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(cloud.rgb, RGB)
    if format.labels:
        np.testing.assert_array_equal(cloud.instance, INSTANCE)
        np.testing.assert_array_equal(cloud.semantic, SEMANTIC)
        assert "instance labels are instance" in cloud.notes
        assert cloud.notes[-1].startswith("kept, but neither labels nor colours: intensity")
    else:
        assert cloud.instance is None
        assert cloud.semantic is None
    # Centred in float64, it is the cloud at the origin.
    offset = far_offset(cloud.pos)
    np.testing.assert_allclose(cloud.pos - offset + offset, POS, rtol=0, atol=1e-6)
    assert np.abs(cloud.pos - offset).max() < 5

    out = tmp_path / "out" / "b"
    files = write_found(out, cloud)
    assert sorted(files) == sorted(out.parent.iterdir())
    assert {file.name for file in files} >= {"b.npz", "b.ply"}
    own = out.with_suffix(path.suffix.lower()) if format.written else out.with_suffix(".npz")
    assert own in files
    for file in {own, out.with_suffix(".npz")}:
        (again,) = read_clouds(file)
        np.testing.assert_array_equal(again.pos, cloud.pos)
        names, before = list(again.properties), list(cloud.properties)
        assert names[: len(before)] == before
        for name in before:
            np.testing.assert_array_equal(again.properties[name], cloud.properties[name])
        new = names[len(before) :][:5]
        prefix = "found_" if format.labels else ""
        assert new == [
            f"{prefix}instance",
            "class" if "class" not in before else "found_class",
            "score",
            "sigma",
            "uncertainty",
        ]
        instance, category, score, sigma, uncertainty = (again.properties[name] for name in new)
        np.testing.assert_array_equal(instance, LABEL)
        np.testing.assert_array_equal(category, np.where(LABEL < 0, -1, LABEL + 7))
        np.testing.assert_allclose(score, np.where(LABEL < 0, 0, 0.5 + LABEL / 10), rtol=1e-6)
        np.testing.assert_allclose(sigma, np.exp(np.linspace(-1, 0, N)), rtol=1e-6)
        found, x = found_by_hand(LABEL)
        np.testing.assert_allclose(uncertainty, found.uncertainty(x), rtol=1e-6)
    with np.load(out.with_suffix(".npz")) as file:
        assert file["mean"].shape == file["log_std"].shape == (N, 3)
    (painted,) = read_clouds(
        out.with_suffix(".ply"), instance="found_instance" if path.suffix == ".ply" else "instance"
    )
    np.testing.assert_array_equal(painted.pos, cloud.pos)


def test_every_ending_is_tried() -> None:
    assert {Path(f.name).suffix.lower() for f in FORMATS.values()} | {".hdf5"} == set(ENDINGS)


# --- what formats keep


def test_a_mesh_keeps_its_faces_order_and_comments(tmp_path: Path) -> None:
    ply(">")(tmp_path / "a.ply")
    (cloud,) = read_clouds(tmp_path / "a.ply")
    write_found(tmp_path / "b", cloud)
    mesh = PlyData.read(tmp_path / "b.ply")
    assert [element.name for element in mesh.elements] == ["vertex", "face"]
    assert mesh.comments == ["scanned in May"]
    assert mesh.byte_order == ">"
    assert mesh["vertex"]["x"].dtype == np.dtype(">f8")
    np.testing.assert_array_equal(mesh["face"]["vertex_indices"][1], [2, 3, 4])
    np.testing.assert_array_equal(mesh["vertex"]["red"], RGB[:, 0])


def test_a_ply_without_colours_is_painted(tmp_path: Path) -> None:
    PlyData([PlyElement.describe(structured(("x", "y", "z")), "vertex")]).write(tmp_path / "a.ply")
    (cloud,) = read_clouds(tmp_path / "a.ply")
    write_found(tmp_path / "b", cloud)
    np.testing.assert_array_equal(read_clouds(tmp_path / "b.ply")[0].rgb, np.vstack([COLORS, [[200] * 3]])[LABEL])


def test_results_do_not_replace_the_input(tmp_path: Path) -> None:
    for name in ("a.ply", "b.csv", "c.npz"):
        FORMATS[{"a.ply": "ply, ascii", "b.csv": "csv", "c.npz": "npz"}[name]].write(tmp_path / name)
        before = (tmp_path / name).read_bytes()
        (cloud,) = read_clouds(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: expected another folder for the results"):
            write_found(tmp_path / "." / cloud.name, cloud)
        assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_lists_of_a_ply_are_written_back(tmp_path: Path) -> None:
    vertex = np.empty(N, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4"), ("seen_by", object)])
    for i, axis in enumerate("xyz"):
        vertex[axis] = LOCAL[:, i]
    vertex["seen_by"] = [np.arange(i % 3, dtype=np.int32) for i in range(N)]
    PlyData([PlyElement.describe(vertex, "vertex", val_types={"seen_by": "i4"})]).write(tmp_path / "a.ply")
    (cloud,) = read_clouds(tmp_path / "a.ply")
    assert not cloud.properties
    write_found(tmp_path / "b", cloud)
    again = PlyData.read(tmp_path / "b.ply")["vertex"]
    np.testing.assert_array_equal(again["seen_by"][5], [0, 1])


def test_las_keeps_scale_offset_and_version(tmp_path: Path) -> None:
    las(tmp_path / "a.laz")
    (cloud,) = read_clouds(tmp_path / "a.laz")
    write_found(tmp_path / "b", cloud)
    write_found(tmp_path / "c", cloud)  # the first writing leaves the cloud as it was
    before = laspy.read(tmp_path / "a.laz")
    for name in "bc":
        after = laspy.read(tmp_path / f"{name}.laz")
        assert after.header.are_points_compressed
        assert after.header.version == before.header.version
        np.testing.assert_array_equal(after.header.offsets, before.header.offsets)
        np.testing.assert_array_equal(after.header.scales, before.header.scales)
        np.testing.assert_array_equal(after.X, before.X)
        np.testing.assert_array_equal(after.gps_time, before.gps_time)
        assert list(after.point_format.extra_dimension_names) == [
            "instance",
            "found_instance",
            "class",
            "score",
            "sigma",
            "uncertainty",
        ]


def test_an_indexed_laz_is_written_without_its_index(tmp_path: Path) -> None:
    las(tmp_path / "a.copc.laz")
    cloud = laspy.read(tmp_path / "a.copc.laz")
    cloud.vlrs.extend([laspy.VLR("copc", 1, "index", bytes(160)), laspy.VLR("LASF_Projection", 2112, "", b"UTM\0")])
    cloud.write(tmp_path / "a.copc.laz")
    (cloud,) = read_clouds(tmp_path / "a.copc.laz")
    write_found(tmp_path / "b", cloud)
    assert [record.record_id for record in laspy.read(tmp_path / "b.laz").vlrs if record.user_id == "LASF_Projection"]
    np.testing.assert_array_equal(read_clouds(tmp_path / "b.laz")[0].pos, cloud.pos)


def test_unclassified_las_has_no_classes(tmp_path: Path) -> None:
    las(tmp_path / "a.las")
    cloud = laspy.read(tmp_path / "a.las")
    cloud.classification = INSTANCE % 2
    cloud.write(tmp_path / "a.las")
    (read,) = read_clouds(tmp_path / "a.las")
    assert read.semantic is None
    assert "classification not used as semantic: no point is classified" in read.notes
    np.testing.assert_array_equal(read_clouds(tmp_path / "a.las", semantic="classification")[0].semantic, INSTANCE % 2)


def test_clouds_of_one_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["pts"], file["label"] = np.stack([LOCAL, LOCAL + 1]), np.stack([INSTANCE, SEMANTIC])
    one, two = read_clouds(tmp_path / "a.hdf5")
    assert (one.name, two.name) == ("a-0", "a-1")
    np.testing.assert_array_equal(two.pos, LOCAL + 1)
    np.testing.assert_array_equal(two.instance, SEMANTIC)


def test_arrays_of_axes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=POS[:, 0], y=POS[:, 1], z=POS[:, 2])
    np.testing.assert_array_equal(read_clouds(tmp_path / "a.npz")[0].pos, POS)


# --- text


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE], ids=["utf-8", "utf-16"])
def test_a_byte_order_mark_is_read(tmp_path: Path, mark: bytes) -> None:
    encoding = "utf-8" if mark == codecs.BOM_UTF8 else "utf-16-le"
    (tmp_path / "a.csv").write_bytes(mark + "X,Y,Z,Ordnung, Größe\n1,2,3,4,5\n2,3,4,5,6\n".encode(encoding))
    (cloud,) = read_clouds(tmp_path / "a.csv")
    assert list(cloud.properties) == ["Ordnung", "Größe"]
    np.testing.assert_array_equal(cloud.pos, [[1, 2, 3], [2, 3, 4]])


def test_columns_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"species";"X";"Y";"Z";"n"\noak;1,5;2;3;7\n"a; b";2,5;3;4;8\n')
    (cloud,) = read_clouds(tmp_path / "a.csv")  # decimal commas, words, quotes
    np.testing.assert_array_equal(cloud.pos, [[1.5, 2, 3], [2.5, 3, 4]])
    assert cloud.properties["species"].tolist() == ["oak", "a; b"]
    assert cloud.properties["n"].dtype == np.int64
    (tmp_path / "b.txt").write_text("# made by hand\n\n1 2 3 9\n4 5 6 8\n# the end\n")
    (cloud,) = read_clouds(tmp_path / "b.txt")
    assert list(cloud.properties) == ["column4"]
    assert cloud.instance is None
    (cloud,) = read_clouds(tmp_path / "b.txt", columns=["y", "x", "z", "instance"])
    np.testing.assert_array_equal(cloud.pos, [[2, 1, 3], [5, 4, 6]])
    np.testing.assert_array_equal(cloud.instance, [9, 8])


def test_cloudcompare_s_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "//X Y Z Rf Gf Bf Original_cloud_index Nx Ny Nz\n" + "1 2 3 0 0.5 1 4.0 0 0 1\n" * 2
    )
    (cloud,) = read_clouds(tmp_path / "a.txt")
    np.testing.assert_array_equal(cloud.rgb, [[0, 128, 255]] * 2)
    np.testing.assert_array_equal(cloud.instance, [4, 4])
    np.testing.assert_array_equal(cloud.normals, np.float32([[0, 0, 1]] * 2))


# --- colours and labels


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (RGB, None),
        (257 * RGB.astype(np.uint16), "16-bit"),
        (RGB.astype(np.uint16), "taken as 8-bit"),
        ((RGB / 255).astype(np.float32), "fractions of one"),
        (RGB.astype(np.float64), "taken as 8-bit"),
    ],
)
@pytest.mark.parametrize("names", ["red green blue", "diffuse_red diffuse_green diffuse_blue", "r g b"])
def test_colours(tmp_path: Path, values: np.ndarray[Any, Any], note: str | None, names: str) -> None:
    columns = dict(zip("xyz", LOCAL.T, strict=True)) | dict(zip(names.split(), values.T, strict=True))
    np.savez(tmp_path / "a.npz", **columns)
    (cloud,) = read_clouds(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.rgb, RGB)
    assert cloud.notes == () if note is None else note in cloud.notes[0]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (RGB - 300.0, "expected 0 to 255"),
        (RGB * 300.0, "expected 0 to 255"),
        (np.zeros((N, 3), np.uint16), "all are zero"),
        (np.full((N, 3), np.nan), "not all finite"),
    ],
)
def test_colours_that_are_none_are_named(tmp_path: Path, values: np.ndarray[Any, Any], note: str) -> None:
    np.savez(tmp_path / "a.npz", pos=LOCAL, colors=values)
    (cloud,) = read_clouds(tmp_path / "a.npz")
    assert cloud.rgb is None
    assert cloud.notes[0].startswith("colours colors not used")
    assert note in cloud.notes[0]


def test_labels_by_name_and_by_convention(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pos=LOCAL, leaf=INSTANCE.astype(float)[:, None], object=SEMANTIC, label=INSTANCE)
    (cloud,) = read_clouds(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.instance, SEMANTIC)  # object comes before label
    assert cloud.notes == (
        "instance labels are object",
        "kept, but neither labels nor colours: leaf, label",
    )
    options: dict[str, Any] = {"instance": "leaf", "semantic": "object", "no_instance": [0, 2], "ignored": [1]}
    (cloud,) = read_clouds(tmp_path / "a.npz", **options)
    np.testing.assert_array_equal(cloud.instance, np.choose(INSTANCE, [-1, -100, -1, 3, 4]))
    np.testing.assert_array_equal(cloud.semantic, np.choose(SEMANTIC, [0, -100, 2]))
    (cloud,) = read_clouds(tmp_path / "a.npz", instance="label", semantic="label")
    np.testing.assert_array_equal(cloud.instance, cloud.semantic)
    with pytest.raises(
        ValueError, match=r"a\.npz: expected a property part, named for instance labels, got leaf, object, label"
    ):
        read_clouds(tmp_path / "a.npz", instance="part")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(np.arange(N) == 7, np.nan, 1), "got 1 that are NaN or infinite, the first at row 7"),
        (np.where(np.arange(N) == 7, 0.5, 1), r"got 0\.5 at row 7"),
        (np.full((N, 2), "leaf"), r"got <U4 \(60, 2\)"),
        (np.zeros((N, 2), np.int64), r"got int64 \(60, 2\)"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray[Any, Any], message: str) -> None:
    """Refused where they were asked for; else named and left alone, as prediction needs none."""
    np.savez(tmp_path / "a.npz", pos=LOCAL, instance=labels)
    with pytest.raises(ValueError, match=r"a\.npz: expected whole numbers in instance, taken for instance, " + message):
        read_clouds(tmp_path / "a.npz", instance="instance")
    (cloud,) = read_clouds(tmp_path / "a.npz")
    assert cloud.instance is None
    assert cloud.notes[0].startswith("instance not used as instance: got")


def test_labels_may_be_words(tmp_path: Path) -> None:
    """Classes have one number a word in all files; instances are counted in each; an empty word is not labelled."""
    words = {"a": ["stem", "leaf", "", "leaf"], "b": ["root", "root", "stem", "stem"]}
    for name, own in words.items():
        tree = [f"tree {i}" for i in (2, 2, 0, 1)]
        rows = [f"{x},{x},0,{x},{t},{w}\n" for x, (t, w) in enumerate(zip(tree, own, strict=True))]
        (tmp_path / f"{name}.csv").write_text("x,y,z,layer,tree_id,class\n" + "".join(rows))
    one, two = read_clouds(tmp_path, no_instance=["tree 0"])
    assert one.instance.tolist() == two.instance.tolist() == [2, 2, -1, 1]
    assert (one.semantic.tolist(), two.semantic.tolist()) == ([2, 0, -100, 0], [1, 1, 2, 2])
    assert (one.class_names, two.class_names) == ({0: "leaf", 2: "stem"}, {1: "root", 2: "stem"})
    assert "class: points without a word are taken for not labelled" in one.notes
    known = read_clouds(tmp_path / "a.csv", class_names={7: "stem", 3: "pot"})
    assert known[0].semantic.tolist() == [7, 8, -100, 8]
    numbers = read_clouds(tmp_path / "a.csv", semantic="layer", ignored=[3])[0]
    assert numbers.semantic.tolist() == [0, 1, 2, -100]
    with pytest.raises(ValueError, match=r"values of layer that mean none, which has whole numbers, got pot"):
        read_clouds(tmp_path / "a.csv", semantic="layer", ignored=["pot"])


def test_odd_headers(tmp_path: Path) -> None:
    """Axes in any order and with units; what is written has the same first line and coordinates."""
    (tmp_path / "a.csv").write_text(
        "\ufeffHeight (m);Easting;Northing;Baum Nr.\n0,5;7;8;a\n1,5;9;8;b\n", encoding="utf-8"
    )
    (cloud,) = read_clouds(tmp_path / "a.csv", instance="Baum Nr.")
    assert cloud.pos.tolist() == [[7, 8, 0.5], [9, 8, 1.5]]
    assert cloud.instance.tolist() == [0, 1]
    write_instances(tmp_path / "out", cloud, *found_by_hand(np.array([0, 0])), COLORS)
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").split("\n")
    assert lines[0].startswith("Height (m);Easting;Northing;Baum Nr.;instance")
    assert lines[1].startswith("0.5;7.0;8.0;a;0")


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, ">u4", ">u8"])
def test_unsigned_labels_that_were_negative(tmp_path: Path, dtype: Any) -> None:
    labels = np.where(np.arange(N) < 9, -1, np.where(np.arange(N) < 12, -100, INSTANCE))
    np.savez(tmp_path / "a.npz", pos=LOCAL, label=labels.astype(dtype))
    (cloud,) = read_clouds(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.instance, labels)
    assert f"label: -1 or -100 in {np.dtype(dtype)} are taken for that" in cloud.notes


@pytest.mark.parametrize("empty", ["", "NA", "null"])
def test_cells_without_a_label(tmp_path: Path, empty: str) -> None:
    """An empty cell among numbers is no word, after which they would count anew."""
    rows = [f"{x},{x * x},0.5,{empty if x == 3 else 10 * x}" for x in range(6)]
    (tmp_path / "a.csv").write_text("\n".join(["x,y,z,instance", *rows]), encoding="utf-8")
    (cloud,) = read_clouds(tmp_path / "a.csv")
    assert cloud.instance.tolist() == [0, 10, 20, -100, 40, 50]
    assert "instance: points without a word are taken for not labelled" in cloud.notes


def test_words_of_arrays(tmp_path: Path) -> None:
    """In npz and h5; words that are numbers are numbers; an array class_names names numbers."""
    tree = np.array(["12", "7", "", "12"] * 15)
    pot = np.array(["stem", "leaf"] * 30)
    np.savez(tmp_path / "a.npz", pos=LOCAL, tree_id=tree, semantic=np.char.encode(pot))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["pos"], file["tree_id"], file["semantic"] = LOCAL, tree.tolist(), SEMANTIC
        file["class_names"] = ["stem", "leaf", "pot"]
    one, two = read_clouds(tmp_path)
    assert one.instance[:4].tolist() == two.instance[:4].tolist() == [12, 7, -100, 12]
    assert one.class_names == {0: "stem", 1: "leaf"}  # as the other file numbers them
    assert two.class_names == {0: "stem", 1: "leaf", 2: "pot"}
    assert one.semantic[:2].tolist() == [0, 1]


# --- folders


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b/scan.npz", "a/scan.npz", "c.npz", ".hidden.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.savez(tmp_path / name, pos=LOCAL)
    (tmp_path / "notes.md").write_text("-")
    assert [cloud.name for cloud in read_clouds(tmp_path)] == ["a/scan", "b/scan", "c"]
    assert cloud_files(tmp_path / "c.npz") == [tmp_path / "c.npz"]


def test_tables_beside_clouds_are_left_alone(tmp_path: Path) -> None:
    for name in ("a.csv", "b.txt"):
        text(",", "")(tmp_path / name)
    assert [cloud.name for cloud in read_clouds(tmp_path)] == ["a", "b"]
    npz(tmp_path / "c.npz")
    (tmp_path / "b.txt").write_text("train: c")
    with pytest.warns(UserWarning, match=r"left alone beside clouds of other formats: a\.csv, b\.txt; read them"):
        assert [cloud.name for cloud in read_clouds(tmp_path)] == ["c"]
    for number in range(3):
        npy(tmp_path / f"{number}.npy")
    with pytest.warns(UserWarning, match=r": 0\.npy, 1\.npy, 2\.npy and 2 more; read them"):
        assert cloud_files(tmp_path) == [tmp_path / "c.npz"]


def test_a_folder_without_clouds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder without clouds: expected \.asc, .* or \.xyz, got no file"):
        read_clouds(tmp_path)
    (tmp_path / "a.obj").touch()
    (tmp_path / "README").touch()
    with pytest.raises(ValueError, match=r"got \.obj, README"):
        read_clouds(tmp_path)
    with pytest.raises(ValueError, match=r"README: expected \.asc, .* got no ending"):
        read_clouds(tmp_path / "README")


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / b"sc\xffan.npz".decode("utf-8", "surrogateescape")
    np.savez(path, pos=LOCAL)
    (cloud,) = read_clouds(path)
    assert cloud.name.encode() == b"sc?an"


# --- broken files


def test_any_damage_is_a_value_error_that_names_the_file(format: Format, tmp_path: Path) -> None:
    """Whatever the library raises on it, and nothing but a warning or noise where it is still readable."""
    path = tmp_path / format.name
    format.write(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    told = 0
    for case in range(40):
        broken = bytearray(whole if case % 2 else whole[: rng.integers(1, len(whole))])
        for at in rng.integers(0, len(broken), 20):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_clouds(path, columns=format.columns)
            except ValueError as error:
                assert str(error).startswith(str(path))  # noqa: PT017 (only where there is one)
                told += 1
    assert told > 10


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_lies_there_instead(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    for content, message in (
        (b"", r"is empty: expected a \.\w+ file"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a{ending} {message}"):
            read_clouds(path)


def claim_ply(path: Path, form: str) -> None:
    path.write_text(
        f"ply\nformat {form} 1.0\nelement vertex 100000000000\n" + "property float x\nproperty float y\n" * 2
    )
    path.write_bytes(path.read_bytes() + b"end_header\n" + bytes(60))


def claim_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 3)})


def claim_npz(path: Path) -> None:
    claim_npy(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".npy"), "pos.npy")


def claim_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("pos", (10**11, 3), "f4", chunks=(1000, 3))


def claim_las(path: Path) -> None:
    las(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 107, 2**32 - 1)
    path.write_bytes(content)


def claim_pcd(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        lines = ["VERSION 0.7", "FIELDS x y z", "SIZE 4 4 4", "TYPE F F F", "COUNT 1 1 1", "WIDTH 100000000000"]
        path.write_text("\n".join([*lines, "HEIGHT 1", "POINTS 100000000000", f"DATA {kind}", ""]) + "0" * 60)

    return write


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.ply", lambda path: claim_ply(path, "ascii")),
        ("a.ply", lambda path: claim_ply(path, "binary_little_endian")),
        ("a.npz", claim_npz),
        ("a.h5", claim_h5),
        ("a.las", claim_las),
        ("a.laz", claim_las),
        *[("a.pcd", claim_pcd(kind)) for kind in ("ascii", "binary", "binary_compressed")],
    ],
)
def test_a_header_that_claims_too_much(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    with pytest.raises(
        ValueError, match=rf"{name}: the header claims (100000000000|4294967295) points, .* the file has"
    ):
        read_clouds(tmp_path / name)


def test_claims_of_an_npy_and_a_pts(tmp_path: Path) -> None:
    claim_npy(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npy is no readable npy file"):
        read_clouds(tmp_path / "a.npy")
    (tmp_path / "a.pts").write_text("100000000000\n1 2 3\n4 5 6\n")
    with pytest.raises(ValueError, match=r"a\.pts: its first line claims 100000000000 points, but it has 2"):
        read_clouds(tmp_path / "a.pts")


def group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("points")["x"] = LOCAL[:, 0]


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{"pos": LOCAL}], dtype=object))


def pickle_itself(path: Path) -> None:
    path.write_bytes(b"\x80\x04K\x01.")


def some(fields: str, kind: str = "ascii") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        names = fields.split()
        ones = " ".join("1" for _ in names)
        sizes = " ".join("4" for _ in names)
        path.write_text(
            f"VERSION 0.7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {' '.join('F' for _ in names)}\nCOUNT {ones}\nWIDTH 3\n"
            f"HEIGHT 1\nPOINTS 3\nDATA {kind}\n{ones}\n{ones}\n"
        )

    return write


def empty_e57(path: Path) -> None:
    pye57.E57(str(path), mode="w").close()


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.h5", group, "expected an array points, got a group of x: write"),
        ("a.npz", lambda p: np.savez(p, pos=np.array([{}, 1], dtype=object)), "got Python objects in pos, which could"),
        ("a.npz", pickle_itself, "is a pickle of Python objects"),
        ("a.npy", pickled, "is no readable npy file"),
        ("a.npy", lambda p: np.save(p, np.zeros((5, 2))), r"expected positions \(N, 3\)"),
        ("a.npz", lambda p: np.savez(p, pos=np.full((5, 3), "a")), r"expected positions \(N, 3\)"),
        ("a.npz", lambda p: np.savez(p, x=LOCAL, y=LOCAL), "expected an array pos, .* got x, y"),
        ("a.h5", lambda p: h5py.File(p, "w").create_group("scene").file.close(), r"got scene \(a group\)"),
        ("a.ply", lambda p: PlyData([]).write(p), "expected an element vertex, got none"),
        ("a.pcd", lambda p: p.write_text("VERSION 0.7\nFIELDS x y z\n"), "none of its lines SIZE, POINTS, DATA"),
        ("a.pcd", some("x y"), "expected fields x, y, z, got x, y"),
        ("a.pcd", some("x y z"), "the header claims 3 points, the file has 2"),
        ("a.e57", empty_e57, "expected a scan, got none"),
        ("a.txt", lambda p: p.write_text("# nothing\n\n"), "expected points, one a line, got none"),
        ("a.csv", lambda p: p.write_text("lon,lat,z\n1,2,3\n"), "expected columns x, y, z, got lon, lat, z"),
        ("a.csv", lambda p: p.write_text("x,y,z\n1,2,3,4\n"), "expected 4 different names, one a column, got x, y, z"),
        ("a.csv", lambda p: p.write_text("x,y,z\n1,2,3\n1,2\n"), "is no readable csv file"),
        ("a.csv", lambda p: p.write_text("x,y,z\na,b,c\na,b,c\n"), "expected positions of numbers, got <U1"),
        ("a.xyz", lambda p: p.write_text("1 2 3\n"), "expected at least 2 points, got 1"),
        ("a.xyz", lambda p: p.write_text("1 2 3\n1 nan 3\n"), r"expected finite positions, got 1 .* row 1: \[1.0, nan"),
        ("a.xyz", lambda p: p.write_text("1 2 3\n" * 3 + "1 1e300 3\n"), r"finite as float32.* got \[1.0, 1e\+300, 3"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, name: str, write: Callable[[Path], Any], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}[: ].*{message}"):
        read_clouds(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("a.ply", "plyfile", "clouds"),
        ("a.las", "laspy", "clouds"),
        ("a.pcd", "pypcd4", "clouds"),
        ("a.h5", "h5py", "clouds"),
        ("a.e57", "pye57", "e57"),
    ],
)
def test_a_missing_library_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    (tmp_path / name).write_bytes(b"ply")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {module}.*pip install -e "\.\[{extra}\]" in the clone'):
        read_clouds(tmp_path / name)
