"""Text: xyz, txt, csv, asc and pts, one point a line, its columns named by a header, by comments or by the caller."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probemb_adapters.clouds.arrays import named_columns
from probemb_adapters.clouds.cloud import Array, Cloud, Stored

_PTS = {4: ("intensity",), 6: ("red", "green", "blue"), 7: ("intensity", "red", "green", "blue")}
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")


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


def read_text(path: Path, columns: Sequence[str] | None) -> list[Stored]:
    """The table of a text file; lines that begin with # or // are comments, of which the last may name the columns."""
    with path.open("rb") as file:
        start = file.read(4)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = path.read_text(encoding=encoding, errors="replace")
    comment, header, first, claimed = "", None, None, None
    lines = io.StringIO(text)
    begin = 0  # where the data begins in the text
    while first is None:
        begin = lines.tell()
        line = lines.readline()
        if not line:
            raise ValueError(f"{path}: expected points, one a line, got none")
        bare = line.strip()
        if bare.startswith(("#", "//")):
            comment = bare
        elif path.suffix.lower() == ".pts" and claimed is None and bare.isdigit():
            claimed = int(bare)
        elif bare and header is None and not _number(_split(bare, _delimiter(bare))[0]):
            header = bare
        elif bare:
            first = bare
    delimiter = _delimiter(first)
    tokens = _split(first, delimiter)
    if delimiter == ";" and any("," in token for token in tokens):  # decimal commas
        text, begin = text[begin:].replace(",", "."), 0
        tokens = [token.replace(",", ".") for token in tokens]
    own, prefix = _names(comment, header, tokens, path.suffix.lower())
    names = columns if columns is not None else own
    numeric = [i for i, token in enumerate(tokens) if _number(token)]
    body = text[begin:]
    table = _load(body, delimiter, numeric, np.float64)
    if claimed is not None and claimed != len(table):
        raise ValueError(f"{path}: its first line claims {claimed} points, but it has {len(table)}: truncated?")
    values: list[Array] = [np.empty(0)] * len(tokens)
    for i, column in zip(numeric, table.T, strict=True):
        whole = _INTEGER.fullmatch(tokens[i]) and np.all(np.abs(column) < 2**53) and np.all(column == np.round(column))
        values[i] = column.astype(np.int64) if whole else column.copy()
    words = [i for i in range(len(tokens)) if i not in numeric]
    for i, column in zip(words, _load(body, delimiter, words, str).T if words else (), strict=True):
        values[i] = column
    (stored,) = named_columns(path, values, names)
    if path.suffix.lower() == ".pts":
        return [stored]
    named = [*stored.properties]
    order = names if names is not None else ["x", "y", "z", *named]
    axes = sorted((name for name in order if name not in stored.properties), key=str.lower)
    return [stored._replace(layout=Layout(tuple(order), tuple(axes), delimiter or " ", prefix))]


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


def _names(comment: str, header: str | None, tokens: Sequence[str], suffix: str) -> tuple[list[str] | None, str | None]:
    """Names of the columns and what stands before them, by the header, a comment, or the format."""
    for line in (header, comment):
        if line:
            prefix = re.match(r"[#/\s]*", line)
            before = prefix.group() if prefix else ""
            bare = line[len(before) :]
            names = [name.strip() for name in _split(bare, _delimiter(bare))]
            if line == header or (len(names) == len(tokens) and {"x", "y", "z"} <= {n.lower() for n in names}):
                return names, before
    if suffix == ".pts" and len(tokens) in _PTS:
        return ["x", "y", "z", *_PTS[len(tokens)]], None
    return None, None


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
