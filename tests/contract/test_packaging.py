"""What is installed is what was meant: a wheel without tests, names that nobody else takes, locks that name no address."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from uv import find_uv_bin

from core.llm.providers import PROVIDERS
from onethread.settings import Settings, variable
from tests import vendoring
from tests.vendoring import VENDOR

ROOT = Path(__file__).parents[2]
OUR_PACKAGES = {"onethread", "core", "storage", "bots", "mcp_server", "web"}
OUR_NAMES = {*OUR_PACKAGES, "tests"}
_ADDRESS = r"https?:|file:|git\+"
LOCKS = ["requirements.lock", "requirements-dev.lock"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline by the backend in the locked uv."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [find_uv_bin(), "build", "--wheel", "--offline", "--python", sys.executable, "--out-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """The names of the files in it."""
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_wheel_holds_our_packages_and_nothing_else(wheel: list[str]) -> None:
    packages = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}

    assert packages == OUR_PACKAGES


def test_wheel_holds_every_source_and_data_file(wheel: list[str]) -> None:
    ours = {path.relative_to(ROOT).as_posix() for package in OUR_PACKAGES for path in (ROOT / package).rglob("*") if _belongs(path)}

    assert {name for name in wheel if name.split("/")[0] in OUR_PACKAGES and not name.endswith("/")} == ours


def test_page_is_served_from_where_the_wheel_was_installed(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path)
    program = """if True:
        import asyncio, sys, web.files
        got = asyncio.run(web.files.Files().get(sys.argv[1]))
        print(web.files.FOLDER, got.media_type, len(got.data))"""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    for path in ("index.html", "app.js", "css/base.css", "vendor/preact.js"):
        command = [sys.executable, "-c", program, path]
        served = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True, timeout=30).stdout.split()
        assert served[0] == str(tmp_path / "web" / "static")
        assert int(served[-1]) == (ROOT / "web" / "static" / path).stat().st_size


def test_wheel_installs_the_console_script() -> None:
    scripts = tomllib.loads(_read("pyproject.toml"))["project"]["scripts"]

    assert scripts == {"onethread": "onethread.cli:main"}


def test_no_dependency_ships_one_of_our_top_level_names() -> None:
    clashes = {
        (distribution.name, top)
        for distribution in distributions()
        for top in _top_level_names(distribution)
        if distribution.name != "onethread" and top in OUR_NAMES
    }

    assert clashes == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_exact_and_has_hashes(lock: str) -> None:
    for requirement in _requirements(lock):
        assert re.match(r"[a-z0-9._-]+(\[[a-z,-]+\])?==\S+ ", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_no_address(lock: str) -> None:
    assert not re.search(rf"{_ADDRESS}|--index-url|--extra-index-url|--find-links", _read(lock))


def test_npm_lock_holds_no_address_but_where_to_thank_people() -> None:
    packages = json.loads(_read("package-lock.json"))["packages"].values()

    assert [package for package in packages if "resolved" in package] == []
    assert not re.search(_ADDRESS, json.dumps([{**package, "funding": None} for package in packages]))


def test_npm_lock_holds_a_hash_for_every_package() -> None:
    packages = json.loads(_read("package-lock.json"))["packages"]

    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def test_vendored_files_are_those_of_their_packages() -> None:
    """`make vendor` writes them; who changes one by hand changes what others hold for a library."""
    packages = vendoring.manifest()["packages"]
    told = {name: sha256 for package in packages for name, sha256 in package["files"].items()}
    found = {path.relative_to(VENDOR).as_posix(): vendoring.sha256(path.read_bytes()) for path in VENDOR.rglob("*.js")}

    assert found == told
    assert [(each["name"], each["version"], [*each["files"]]) for each in packages] == [
        (each.name, each.version, [*each.files]) for each in vendoring.PACKAGES
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", package["sha256"]) for package in packages)


def test_vendored_files_come_with_their_licences_and_no_address() -> None:
    licences = (VENDOR / "LICENSES.txt").read_text(encoding="utf-8")

    assert {package["licence"] for package in vendoring.manifest()["packages"]} == {"MIT", "Apache-2.0", "BSD-3-Clause"}
    assert [each.name for each in vendoring.PACKAGES if f"\n{each.name} {each.version}\n" not in licences] == []
    assert not re.search(_ADDRESS, (VENDOR / "MANIFEST.json").read_text(encoding="utf-8"))


def test_vendored_modules_import_by_path_and_name_no_source_map() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in VENDOR.rglob("*.js")}

    assert {name for name, text in texts.items() if vendoring.rewritten(text) != text} == set()
    assert vendoring.rewritten("import{a}from\"preact\";export*from 'preact/hooks'\n//# sourceMappingURL=a.js.map") == (
        'import{a}from"./preact.js";export*from "./hooks.js"\n'
    )


def test_dev_lock_contains_the_runtime_lock() -> None:
    runtime, dev = ({requirement.split(" ")[0] for requirement in _requirements(lock)} for lock in LOCKS)

    assert runtime - dev == set()


def test_locks_fulfil_what_pyproject_asks_for() -> None:
    project = tomllib.loads(_read("pyproject.toml"))
    runtime, dev = ({_name(requirement) for requirement in _requirements(lock)} for lock in LOCKS)

    assert {_name(wanted) for wanted in project["project"]["dependencies"]} - runtime == set()
    assert {_name(wanted) for wanted in project["dependency-groups"]["dev"]} - dev == set()


def test_env_example_shows_every_setting_with_its_default() -> None:
    defaults = {variable(name): _shown(field) for name, field in Settings.model_fields.items()}

    assert {name: value for name, value in _env_example().items() if name in defaults or name.startswith("ONETHREAD_")} == defaults


def test_env_example_names_only_keys_that_a_provider_reads() -> None:
    known = {name for provider in PROVIDERS for name in provider.key_names} | set(map(variable, Settings.model_fields))

    assert set(_env_example()) - known == set()


def test_env_example_changes_nothing_when_copied_as_it_is() -> None:
    assert [line for line in _read(".env.example").splitlines() if line and not line.startswith("#")] == []


def _env_example() -> dict[str, str]:
    return dict(re.findall(r"^# ([A-Z_]+)=(.*)$", _read(".env.example"), flags=re.MULTILINE))


def _shown(setting: FieldInfo) -> str:
    """A default that depends on the machine is described in words, its value left empty."""
    if setting.default_factory or setting.default is None:
        return ""
    return ",".join(setting.default) if isinstance(setting.default, tuple) else str(setting.default)


def _top_level_names(distribution: Distribution) -> set[str]:
    record = distribution.read_text("RECORD") or ""  # distribution.files says the same in 6 s
    return {line.split(",")[0].split("/")[0].removesuffix(".py") for line in record.splitlines()}


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _belongs(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _name(requirement: str) -> str:
    """The package's name of `litellm>=1.106.2,<2` or `uvicorn[standard]==1.0`, in its normal form."""
    return re.split(r"[\[<>=! ;]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def _requirements(lock: str) -> list[str]:
    """Each locked requirement with its markers and hashes on one line."""
    text = re.sub(r"^\s*#.*\n", "", _read(lock), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()
