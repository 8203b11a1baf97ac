"""Text: xyz, txt, csv, asc and pts, one point a line, its columns named by a header, by comments or by the caller."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probemb_adapters.clouds.arrays import axes_of, named_columns
from probemb_adapters.clouds.cloud import Array, Cloud, Stored

_PTS = {4: ("intensity",), 6: ("red", "green", "blue"), 7: ("intensity", "red", "green", "blue")}
_INTEGER = re.compile(r"[+-]?\d+")


class Layout(NamedTuple):
    """How the lines of a text file are made.

    Attributes:
        names: of the columns.
        axes: which of them are x, y, z.
        delimiter: between the columns.
        header: what stands before the names in the first line, such as `#`; None: the file does not name its columns.
    """

    names: tuple[str, ...]
    axes: tuple[str, ...]
    delimiter: str
    header: str | None


class _Head(NamedTuple):
    """What stands before the first point.

    Attributes:
        comment: the last one, with its mark.
        header: the names of the columns.
        points: how many the file claims to have.
        first: the line of the first point.
        begin: where in the text that line begins.
    """

    comment: str
    header: str | None
    points: int | None
    first: str
    begin: int


def read_text(path: Path, columns: Sequence[str] | None) -> list[Stored]:
    """The table of a text file; lines that begin with # or // are comments, of which the last may name the columns."""
    with path.open("rb") as file:
        start = file.read(2)
    encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    text = path.read_text(encoding=encoding, errors="replace")
    ending = path.suffix.lower()
    head = _head(path, text, counted=ending == ".pts")
    text, delimiter = text[head.begin :], _delimiter(head.first)
    tokens = _split(head.first, delimiter)
    if delimiter == ";" and any("," in token for token in tokens):  # decimal commas
        text, tokens = text.replace(",", "."), [token.replace(",", ".") for token in tokens]
    names, prefix = _names(head, tokens, ending)
    names = names if columns is None else list(columns)
    values = _columns(text, delimiter, tokens)
    if head.points is not None and head.points != len(values[0]):
        raise ValueError(f"{path}: its first line claims {head.points} points, but it has {len(values[0])}: truncated?")
    (stored,) = named_columns(path, values, names)
    if ending == ".pts":
        return [stored]
    order = ["x", "y", "z", *stored.properties] if names is None else names
    return [stored._replace(layout=Layout(tuple(order), axes_of(order), delimiter or " ", prefix))]


def write_text(path: Path, cloud: Cloud, added: Mapping[str, Array]) -> None:
    """The table that the cloud came from with more columns, the names of which are in its first line."""
    layout: Layout = cloud.layout
    axes = {name: cloud.pos[:, i].astype(cloud.stored) for i, name in enumerate(layout.axes)}
    table = {name: axes[name] if name in axes else cloud.properties[name] for name in layout.names} | dict(added)
    columns = [_written(values, layout.delimiter) for values in table.values()]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        names = layout.delimiter.join(_quoted(name, layout.delimiter) for name in table)
        file.write(f"{'# ' if layout.header is None else layout.header}{names}\n")
        file.writelines(layout.delimiter.join(row) + "\n" for row in zip(*columns, strict=True))


def _head(path: Path, text: str, *, counted: bool) -> _Head:
    """What stands before the first point; ``counted`` files may begin with the number of points."""
    comment, header, points = "", None, None
    lines = io.StringIO(text)
    begin = 0
    for line in iter(lines.readline, ""):
        bare = line.strip()
        if bare.startswith(("#", "//")):
            comment = bare
        elif counted and points is None and bare.isdecimal():
            points = int(bare)
        elif bare and header is None and not _number(_split(bare, _delimiter(bare))[0]):
            header = bare
        elif bare:
            return _Head(comment, header, points, bare, begin)
        begin = lines.tell()
    raise ValueError(f"{path}: expected points, one a line, got none")


def _names(head: _Head, tokens: Sequence[str], suffix: str) -> tuple[list[str] | None, str | None]:
    """Names of the columns and what stands before them, by the header, a comment, or the format."""
    for line in (head.header, head.comment):
        if line:
            bare = line.lstrip("#/ \t")
            names = _split(bare, _delimiter(bare))
            if line == head.header or (len(names) == len(tokens) and {"x", "y", "z"} <= {n.lower() for n in names}):
                return names, line[: len(line) - len(bare)]
    if suffix == ".pts" and len(tokens) in _PTS:
        return ["x", "y", "z", *_PTS[len(tokens)]], None
    return None, None


def _columns(text: str, delimiter: str | None, tokens: Sequence[str]) -> list[Array]:
    """The columns: of words where a line has one, of whole numbers where all are, else of floats."""
    numeric = [i for i, token in enumerate(tokens) if _number(token)]
    try:
        table = _load(text, delimiter, numeric, np.float64)
    except ValueError:  # a word in a later line; or the file is no table, which the next call says again
        columns = dict(zip(numeric, _load(text, delimiter, numeric, str).T, strict=True))
        numeric = [i for i, values in columns.items() if all(map(_number, np.unique(values)))]
        table = _load(text, delimiter, numeric, np.float64)
    words = [i for i in range(len(tokens)) if i not in numeric]
    values: dict[int, Array] = dict(zip(numeric, table.T, strict=True))
    if words:
        values |= dict(zip(words, _load(text, delimiter, words, str).T, strict=True))
    for i in numeric:
        whole = _INTEGER.fullmatch(tokens[i]) and np.all(values[i] == np.round(values[i]))
        if whole and np.abs(values[i]).max() < 2**53:
            values[i] = values[i].astype(np.int64)
    return [np.ascontiguousarray(values[i]) for i in range(len(tokens))]


def _load(text: str, delimiter: str | None, columns: Sequence[int], dtype: type) -> Array:
    """Some columns of the lines, (N, C)."""
    return np.loadtxt(
        io.StringIO(text),
        dtype=dtype,
        comments=[mark for mark in ("#", "//") if mark in text] or None,
        delimiter=delimiter,
        usecols=columns,
        ndmin=2,
        quotechar='"',
    )


def _delimiter(line: str) -> str | None:
    """None: any white space."""
    return next((d for d in (";", "\t", ",") if d in line), None)


def _split(line: str, delimiter: str | None) -> list[str]:
    return [token.strip().strip('"') for token in line.split(delimiter)]


def _number(token: str) -> bool:
    try:
        float(token.replace(",", "."))
    except ValueError:
        return False
    return True


def _written(values: Array, delimiter: str) -> list[str]:
    """Shortest text that reads back as the same number."""
    if values.dtype == np.float32:
        return [str(np.float32(x)) for x in values]
    return [_quoted(str(x), delimiter) for x in values.tolist()]


def _quoted(text: str, delimiter: str) -> str:
    return f'"{text}"' if delimiter in text or text == "" else text
