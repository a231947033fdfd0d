"""What holds for the repository as a whole, whatever its packages do."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("fleet", "xds_server", "ext_proc", "sim", "kvpilot")
LOCKS = sorted((ROOT / "locks").glob("*.txt"))

# Tests of parts working together, which mirror no one module.
ACROSS_MODULES = {
    "tests/fleet/store/test_stores.py",  # one contract, every store
    "tests/kvpilot/test_example.py",  # the annotated settings file
    "tests/kvpilot/test_up.py",  # the command as a user runs it
    "tests/test_repository.py",
    "tests/xds_server/test_against_envoy.py",
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["local"]]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def locked(lock: Path) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("test", sorted((ROOT / "tests").rglob("test_*.py")), ids=relative)
def test_a_test_module_mirrors_a_module(test: Path) -> None:
    if relative(test) in ACROSS_MODULES or relative(test).startswith("tests/integration/"):
        return
    folder = ROOT / test.parent.relative_to(ROOT / "tests")
    name = test.stem.removeprefix("test_")
    places = (folder / f"{name}.py", folder / f"__{name}__.py", folder / name / "__init__.py")
    assert any(place.is_file() for place in places)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_and_subpackage_states_its_contract(package: str) -> None:
    for folder in {module.parent for module in (ROOT / package).rglob("*.py")}:
        init = folder / "__init__.py"
        assert init.is_file(), f"{relative(folder)} is no package"
        assert ast.get_docstring(ast.parse(init.read_text())), f"{relative(init)} has no docstring"


def test_generated_code_is_what_the_proto_files_give(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    subprocess.run([ROOT / "scripts" / "proto", tmp_path], check=True)
    fresh = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert fresh
    for path in fresh:
        assert (ROOT / path.relative_to(tmp_path)).read_bytes() == path.read_bytes(), "run `make proto`"


@pytest.mark.parametrize("lock", LOCKS, ids=relative)
def test_a_lock_names_no_index_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "index-url" not in text
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(lock)) > 0
    assert all("--hash=sha256:" in block for block in blocks)


def test_locks_fit_the_project() -> None:
    run, dev = locked(ROOT / "locks/run.txt"), locked(ROOT / "locks/dev.txt")
    assert run.items() <= dev.items()
    for wanted, lock in ((DEPENDENCIES, run), (PROJECT["dependency-groups"]["dev"], dev)):
        for requirement in map(Requirement, wanted):
            version = lock.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is in no lock: run `make lock`"
            assert version in requirement.specifier, f"{requirement} against {version}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS, ids=relative)
def test_no_lock_holds_the_package_whose_source_downloads_gigabytes(lock: Path) -> None:
    assert "tensorrt-llm" not in locked(lock)
