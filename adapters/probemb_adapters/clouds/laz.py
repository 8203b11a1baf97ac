"""The points of laz files, decompressed by a process of its own: damaged ones may end the process that does it.

lazrs trusts its input: some bytes changed in the middle of a file are now and then a segmentation fault. The process is
started with the first file, serves all others of its parent, and ends with it. It imports laspy alone.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast

_START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # without the package around it
_REPLY = struct.Struct("<?q")  # whether it went well, and the bytes that follow: point records, or what went wrong


def decompressed(path: Path) -> bytearray:
    """The point records of a laz file, one after the other, as its header describes them.

    Raises:
        ValueError: they cannot be decompressed.
    """
    with _lock:
        return _unpacker().ask(path)


class _Unpacker:
    """The process, and the parent that it belongs to: a fork has the same pipes, which two must not share."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a panic prints
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.requests = cast(IO[bytes], self.process.stdin)
        self.replies = cast(IO[bytes], self.process.stdout)

    def ask(self, path: Path) -> bytearray:
        try:
            self.requests.write(json.dumps(str(path.resolve())).encode() + b"\n")
            self.requests.flush()
            well, size = _REPLY.unpack(_exactly(self.replies, _REPLY.size))
            content = _exactly(self.replies, size)
        except (OSError, EOFError):
            raise ValueError(f"{path}: damaged, decompressing its points ended with status {self.end()}") from None
        except BaseException:  # an interrupt between question and answer: the next answer would be to this question
            self.end()
            raise
        if not well:
            raise ValueError(f"{path}: expected points that decompress, got {content.decode()}")
        return content

    def end(self) -> int:
        """Stop it where it still runs, and tell its exit status."""
        if os.getpid() != self.parent:
            return 0
        with contextlib.suppress(OSError):
            self.requests.close()
        self.replies.close()
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # a fork of this process has the pipe, too
            self.process.kill()
            return self.process.wait()

    @property
    def runs(self) -> bool:
        return os.getpid() == self.parent and self.process.poll() is None


_current: _Unpacker | None = None
_lock = threading.Lock()


def _unpacker() -> _Unpacker:
    global _current
    if _current is None or not _current.runs:
        _current = _Unpacker()
    return _current


@atexit.register
def _end() -> None:
    if _current is not None:
        _current.end()


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    if cast(io.BufferedReader, stream).readinto(content) < size:
        raise EOFError
    return content


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer each path, a line of JSON, by its point records."""
    import laspy

    for line in requests:
        try:
            content, well = laspy.read(json.loads(line)).points.array.tobytes(), True
        except BaseException as error:  # a panic of lazrs is none of Exception
            content, well = f"{type(error).__name__}: {error}".encode(errors="replace"), False
        replies.write(_REPLY.pack(well, len(content)))
        replies.write(content)
        replies.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
