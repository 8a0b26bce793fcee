"""Where web/static/vendor comes from: `make vendor` fetches these packages and writes their files, MANIFEST.json and LICENSES.txt.

To raise a version: change it here, run `make vendor`, read the diff, run the tests of the page. A package whose version stays must be the
one that MANIFEST.json knows by its sha256; releases younger than a week are not taken. The page itself needs neither npm nor this.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parent.parent / "web" / "static" / "vendor"
_LANGUAGES = (
    *("bash", "c", "cpp", "csharp", "css", "diff", "dockerfile", "go", "ini", "java", "javascript", "json", "kotlin", "markdown", "php"),
    *("python", "ruby", "rust", "sql", "swift", "typescript", "xml", "yaml"),
)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    files: Mapping[str, str]
    """What it is called here, and in the package."""


PACKAGES = (
    Package("preact", "11.2.0", {"preact.js": "dist/preact.mjs", "hooks.js": "hooks/dist/hooks.mjs"}),
    Package("@preact/signals-core", "1.14.5", {"signals-core.js": "dist/signals-core.mjs"}),
    Package("@preact/signals", "2.11.4", {"signals.js": "dist/signals.mjs"}),
    Package("htm", "3.1.1", {"htm.js": "dist/htm.module.js"}),
    Package("marked", "18.2.1", {"marked.js": "lib/marked.esm.js"}),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        {
            "highlight/core.js": "es/core.min.js",
            **{f"highlight/{language}.js": f"es/languages/{language}.min.js" for language in _LANGUAGES},
        },
    ),
)
_OURS = {"preact": "preact.js", "preact/hooks": "hooks.js", "@preact/signals-core": "signals-core.js"}
"""The modules that the others import by name. Browsers want a path, and an import map would be an inline script."""
_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*)(["'])(?![./,])([^"'\s]+)\2""")
_SOURCE_MAP = re.compile(r"\s*//# sourceMappingURL=\S+\s*\Z")


def main() -> None:
    known = {package["name"]: package for package in manifest()["packages"]} if (VENDOR / "MANIFEST.json").exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        vendored = [_vendored(package, Path(folder), known.get(package.name)) for package in PACKAGES]
    licences = "\n\n".join(f"{'=' * 80}\n{about['name']} {about['version']}\n{'=' * 80}\n\n{text.strip()}" for about, text in vendored)
    (VENDOR / "LICENSES.txt").write_text(licences + "\n", encoding="utf-8")
    _write_json(VENDOR / "MANIFEST.json", {"packages": [about for about, _ in vendored]})


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VENDOR / "MANIFEST.json").read_text(encoding="utf-8"))
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rewritten(text: str) -> str:
    """A package's module as it stands here: what it imports beside it, and no source map, which is not here."""
    beside = _IMPORT.sub(lambda found: f'{found[1]}"./{_OURS[found[3]]}"', text)
    return _SOURCE_MAP.sub("\n", beside)


def _vendored(package: Package, folder: Path, known: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Its entry in the manifest, and its licence's text; its files are written."""
    command = ["npm", "pack", "--silent", "--min-release-age=7", f"{package.name}@{package.version}"]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=120).stdout.strip()
    archive = (folder / packed).read_bytes()
    if known and known["version"] == package.version and known["sha256"] != sha256(archive):
        sys.exit(f"{package.name} {package.version} is not the package that MANIFEST.json knows. Nothing of it was taken.")
    with tarfile.open(folder / packed) as opened:
        about = json.loads(_text(opened, "package.json"))
        licence = _text(opened, "LICENSE")
        texts = {name: rewritten(_text(opened, path)) for name, path in package.files.items()}
    for name, text in texts.items():
        (VENDOR / name).parent.mkdir(exist_ok=True)
        (VENDOR / name).write_text(text, encoding="utf-8")
    entry = {
        "name": package.name,
        "version": package.version,
        "licence": about["license"],
        "sha256": sha256(archive),
        "files": {name: sha256(text.encode()) for name, text in texts.items()},
    }
    return entry, licence


def _text(archive: tarfile.TarFile, path: str) -> str:
    member = archive.extractfile(f"package/{path}")
    assert member
    return member.read().decode()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
