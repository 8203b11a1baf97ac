"""Folders that are replaced at once, or left as they were."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from probemb_adapters.files import MANIFEST, commit_of, replaced_folder


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "shapes").mkdir(parents=True)
    for name in (MANIFEST, "shapes/old.txt", "stats.txt"):
        (root / name).write_text("old")
    return root


def test_the_new_folder_takes_the_place_of_the_old_one(root: Path) -> None:
    with replaced_folder(root) as new:
        (new / "new.txt").write_text("new")
    assert contents(root) == {"new.txt": "new"}
    assert [p.name for p in root.parent.iterdir()] == ["data"]


def test_parts_are_replaced_and_the_rest_stays(root: Path) -> None:
    with replaced_folder(root, ["stats.txt", "shapes"]) as new:
        (new / "stats.txt").write_text("new")
        (new / "shapes").mkdir()
        (new / "shapes" / "new.txt").write_text("new")
    assert contents(root) == {MANIFEST: "old", "stats.txt": "new", "shapes/new.txt": "new"}


@pytest.mark.parametrize("parts", [(), ("shapes",)])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_folder_is_put_back_if_the_new_one_cannot_take_its_place(
    root: Path, parts: tuple[str, ...], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(root)

    def fail(source: Path, target: Path) -> None:
        assert not Path(target).exists()  # the old folder is out of the way
        raise error

    def replace() -> None:
        with replaced_folder(root, parts) as new:
            (new / "shapes").mkdir()
            monkeypatch.setattr(os, "replace", fail)

    with pytest.raises(error):
        replace()
    assert contents(root) == before
    assert [p.name for p in root.parent.iterdir()] == ["data"]


def test_an_error_leaves_the_folder_alone(root: Path) -> None:
    before = contents(root)
    with pytest.raises(IsADirectoryError), replaced_folder(root) as new:
        new.write_text("a folder is no file")
    assert contents(root) == before


def test_what_no_manifest_vouches_for_is_not_replaced(root: Path) -> None:
    (root / MANIFEST).unlink()
    with pytest.raises(FileExistsError, match="holds other things than this cache"), replaced_folder(root):
        pass
    assert contents(root) == {"shapes/old.txt": "old", "stats.txt": "old"}


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(tmp_path) is None  # no clone
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "abc1234-dirty\n"))
    assert commit_of(tmp_path) == "abc1234-dirty"
