"""What an address of the page needs at once, told in its head: a browser fetches it together, instead of one import after another."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from web.files import FOLDER

_IMPORT = re.compile(r'(?:^|;)(?:import|export)\s*(?:[\w${}*,\s]+?\s*\bfrom\s*)?"(\.[^"]+)"', re.MULTILINE)
"""What stands at the start of a statement; `import("...")` loads later."""
_SHEET = re.compile(r'^\s*await style\("(\w+)"\);', re.MULTILINE)
"""For which a module waits before it begins."""


def links(*modules: str, sheets: tuple[str, ...] = (), folder: Path = FOLDER) -> str:
    """Elements for these modules below the folder and all that they import, and for the sheets that they wait for, besides `sheets`.

    They are read from the files once, as this server begins.
    """
    found: dict[str, str] = {}
    for module in modules:
        _walk(module, folder, found)
    waited = [name for text in found.values() for name in _SHEET.findall(text)]
    return "\n".join([*(_module(each) for each in found), *(_sheet(each) for each in dict.fromkeys([*sheets, *waited]))])


def _walk(module: str, folder: Path, found: dict[str, str]) -> None:
    path = folder / module
    if module in found or not path.is_file():
        return
    found[module] = path.read_text(encoding="utf-8")
    for name in _imported(module, found[module]):
        _walk(name, folder, found)


def _imported(module: str, text: str) -> Iterator[str]:
    for address in _IMPORT.findall(text):
        parts: list[str] = []
        for part in (PurePosixPath(module).parent / address).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        yield "/".join(parts)


def _module(path: str) -> str:
    return f'<link rel="modulepreload" href="/static/{path}">'


def _sheet(name: str) -> str:
    return f'<link rel="preload" as="style" href="/static/css/{name}.css">'
