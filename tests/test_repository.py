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
    "tests/ext_proc/protocols/test_conversations.py",  # one conversation by every client
    "tests/ext_proc/protocols/test_golden.py",  # vectors of canonical prompts and hashes
    "tests/ext_proc/protocols/test_hostile.py",  # every parser against any bytes
    "tests/fuzz/test_harness.py",  # the fuzzer's short run
    "tests/ext_proc/test_exchange_properties.py",  # what holds of an exchange whatever Envoy does
    "tests/ext_proc/replication/test_failover.py",  # real Sentinels
    "tests/ext_proc/test_picker_properties.py",  # what holds of the picker whatever happens
    "tests/fleet/store/test_stores.py",  # one contract, every store
    "tests/kvpilot/test_example.py",  # the annotated settings file
    "tests/kvpilot/test_up.py",  # the command as a user runs it
    "tests/test_repository.py",
    "tests/xds_server/test_against_envoy.py",
}

# Modules that no test mirrors, and why.
WITHOUT_A_TEST_OF_THEIR_OWN = {
    "ext_proc/__main__.py": "entry point",
    "ext_proc/endpoint.py": "ties together what has tests; driven by those of the picker",
    "ext_proc/gateway_reply.py": "messages; parsed by the tests of the duplex stream",
    "ext_proc/memory.py": "what is passed on; passed on in tests/ext_proc/replication/test_warm_start.py",
    "ext_proc/placement.py": "a record",
    "ext_proc/reader.py": "reads what `steer` decides; driven by its tests",
    "ext_proc/reply.py": "messages; parsed by the tests of the stream",
    "ext_proc/replication/metrics.py": "a table of metrics",
    "ext_proc/request.py": "a record",
    "ext_proc/tallies.py": "counters; read in the tests of what is steered",
    "fleet/errors.py": "exceptions and their texts; matched wherever they are raised",
    "fleet/names.py": "constants",
    "fleet/settings/endpoint_picker.py": "as models.py",
    "fleet/settings/admission.py": "as models.py",
    "fleet/settings/models.py": "a section of the file; tests/fleet/test_settings.py reads whole files",
    "fleet/settings/picker.py": "as models.py",
    "fleet/settings/section.py": "as models.py",
    "fleet/settings/servers.py": "as models.py",
    "fleet/settings/whole.py": "as models.py",
    "fleet/store/base.py": "a protocol; tests/fleet/store/test_stores.py is its contract",
    "fleet/store/memory_streams.py": "as redis_streams.py",
    "fleet/store/redis_streams.py": "one of the streams of tests/fleet/store/test_streams.py",
    "fleet/store/memory.py": "one of the stores of tests/fleet/store/test_stores.py",
    "kvpilot/__main__.py": "entry point",
    "kvpilot/bench/arms.py": "names; met in the tests of the routes",
    "kvpilot/bench/site.py": "runs everything; brought up by the tests of the command",
    "kvpilot/bench/xds.py": "as site.py",
    "kvpilot/mesh/leash.py": "one call to the kernel; a killed parent shows it in the supervisor's tests",
    "kvpilot/mesh/probe.py": "questions to running servers; asked in the tests of the local mesh",
    "kvpilot/mesh/programs.py": "command lines; run in the tests of the local mesh",
    "sim/apis/api.py": "shapes that the APIs' tests see, and readers of bodies that they refuse with",
    "sim/apis/routes.py": "a table; asked by real clients in tests/integration/test_protocols.py",
    "sim/backend.py": "an engine in real time; served in the tests of the server",
    "sim/foresight.py": "what the oracle sees; compared with what happens in its tests",
    "sim/policy.py": "a record and a protocol; played by the tests of the simulation",
    "xds_server/__main__.py": "entry point",
    "xds_server/metrics.py": "a table of metrics",
    "xds_server/resources/messages.py": "imports, and shapes whose use the other resources' tests see",
}

MODULES = [
    module
    for package in PACKAGES
    for module in sorted((ROOT / package).rglob("*.py"))
    if not module.name.endswith("_pb2.py")  # generated
    and module.name != "__init__.py"  # names a package's contract
]

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


def mirror_of(module: Path) -> Path:
    folder = ROOT / "tests" / module.parent.relative_to(ROOT)
    return folder / f"test_{module.stem.strip('_')}.py"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_has_a_test_module_or_a_reason_to_have_none(module: Path) -> None:
    excused = relative(module) in WITHOUT_A_TEST_OF_THEIR_OWN
    assert mirror_of(module).is_file() != excused, "write one, or keep WITHOUT_A_TEST_OF_THEIR_OWN true"


def test_only_modules_that_exist_are_excused() -> None:
    assert {relative(module) for module in MODULES} >= WITHOUT_A_TEST_OF_THEIR_OWN.keys()


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
