"""The page's files, kept in memory as a browser takes them. One that was changed is read anew: who works on the page restarts nothing."""

import asyncio
import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
"""Ours, not the machine's: a table of types that an administrator can change has broken many a page. What is not named is not served."""
_SAFE_PATH = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*", re.ASCII)
"""No part of it begins with a dot, so none leads out of the folder."""
_SMALL_BYTES = 500
"""What compressing would not make smaller by a packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    media_type: str
    data: bytes
    gzipped: bytes | None
    etag: str
    """The same for both forms, so a weak one."""
    stamp: tuple[int, int]


class Files:
    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._read: dict[str, File] = {}

    async def get(self, path: str) -> File | None:
        """The file of that path below the folder, as it is now."""
        media_type = _TYPES.get(path[path.rfind(".") :]) if _SAFE_PATH.fullmatch(path) else None
        if media_type is None:
            return None
        file, stamp = self._read.get(path), _stamp(self._folder / path)
        if stamp and (file is None or file.stamp != stamp):
            file = self._read[path] = await asyncio.to_thread(_read, self._folder / path, media_type, stamp)
        return file if stamp else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read(path: Path, media_type: str, stamp: tuple[int, int]) -> File:
    data = path.read_bytes()
    gzipped = gzip.compress(data, mtime=0) if len(data) > _SMALL_BYTES else None
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'
    return File(media_type=media_type, data=data, gzipped=gzipped, etag=etag, stamp=stamp)
