"""Imports go one way, the kernel's core does no I/O, and the kernel fits in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("ukernel", "servers", "hwsim", "launcher", "tests")
BROKER = ROOT / "ukernel" / "broker"
SOURCES = sorted(
    path
    for top in OURS[:4]
    for path in (ROOT / top).rglob("*.py")
    if "__pycache__" not in str(path)
)

# A package, and what of ours its modules may import. A server is one module or one package.
LAYERS = {
    "ukernel.abi": ("ukernel.abi",),
    "ukernel.broker": ("ukernel.broker", "ukernel.abi"),
    "ukernel.lib": ("ukernel.lib", "ukernel.abi"),
    "hwsim": ("hwsim", "ukernel.abi", "ukernel.lib"),
    "launcher": ("launcher", "ukernel.abi", "ukernel.lib"),
}
SERVERS_MAY = ("ukernel.abi", "ukernel.lib")

SHELL = {"shell", "__main__", "__init__"}  # the kernel's only modules that see the world
PURE = {"collections", "dataclasses", "enum", "heapq", "itertools", "typing", "__future__"}
POLICY = [ROOT / "launcher" / f"{name}.py" for name in ("heartbeat", "supervisor")]
WORLDLY = {"open", "print", "input", "exec", "eval", "__import__"}
KERNEL_LINES, FUNCTION_LINES = 1500, 45


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import, wherever in the file it stands.

    `from a import b` counts as `a.b` where that is a module of ours, else as `a`.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                here = ROOT.joinpath(*full.split("."))
                found = here.is_dir() or here.with_suffix(".py").is_file()
                yield node.lineno, full if found else node.module or ""


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def allowed(module: str) -> tuple[str, ...]:
    if module.startswith("servers."):
        return (".".join(module.split(".")[:2]), *SERVERS_MAY)
    return next((may for layer, may in LAYERS.items() if within(module, (layer,))), ())


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 60
    assert {module_of(path).split(".")[0] for path in SOURCES} == set(OURS[:4])


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    may = allowed(module_of(path))
    wrong = [
        f"{path}:{line}: {module_of(path)} may not import {name}"
        for line, name in imported(path)
        if within(name, OURS) and not within(name, may)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "name"),
    [
        ("ukernel.abi.wire", "ukernel.lib.stub"),
        ("ukernel.lib.stub", "ukernel.broker.state"),
        ("servers.disk", "servers.fs.cache"),
        ("servers.disk", "servers.diskette"),
        ("launcher.cli", "ukernel.broker.step"),
        ("launcher.cli", "hwsim.machine"),
        ("hwsim.machine", "servers.disk"),
        ("ukernel.broker.step", "ukernel.lib.stub"),
    ],
)
def test_the_rule_refuses(importer: str, name: str) -> None:
    assert not within(name, allowed(importer))


@pytest.mark.parametrize(
    "path", [p for p in BROKER.glob("*.py") if p.stem not in SHELL], ids=lambda p: p.stem
)
def test_the_core_of_the_kernel_sees_no_world(path: Path) -> None:
    """No socket, no file, no clock, no randomness: they come in with the event."""
    assert list(world_of(path, ("ukernel",))) == []


@pytest.mark.parametrize("path", POLICY, ids=lambda p: p.stem)
def test_what_decides_over_lives_sees_no_world(path: Path) -> None:
    ours = (*map(module_of, POLICY), "ukernel.abi.exits", "ukernel.abi.manifest")
    assert list(world_of(path, ours)) == []


def world_of(path: Path, may: tuple[str, ...]) -> Iterator[str]:
    """What a module knows of the world outside, by import or as a built-in function."""
    for line, name in imported(path):
        if not within(name, may) and name.split(".")[0] not in PURE:
            yield f"{path}:{line}: {name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and node.id in WORLDLY:
            yield f"{path}:{node.lineno}: {node.id}"


def test_the_world_is_seen_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "seer.py"
    path.write_text("import time\nfrom os import path\nimport random as r\nopen('x')\n")
    found = [text.rpartition(": ")[2] for text in world_of(path, ())]
    assert found == ["time", "os", "random", "open"]


def test_the_kernel_is_read_in_one_sitting() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in BROKER.glob("*.py"))
    assert lines < KERNEL_LINES


@pytest.mark.parametrize("path", sorted(BROKER.glob("*.py")), ids=lambda p: p.stem)
def test_its_functions_are_short(path: Path) -> None:
    long = [
        f"{path}:{node.lineno}: {node.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []
