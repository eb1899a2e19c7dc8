"""programs: what `python -m MODULE` would do, kept ready so that a start need not look for it.

A module that is made to be imported ends in `if __name__ == "__main__":`. It has been imported
once, in the zygote; what is left to run is the part under that line. A package has `__main__.py`.
Anything else is a script: it is not imported ahead, and runs as `python -m` runs it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import runpy
import sys
import traceback
import types
from pathlib import Path

_ready: dict[str, tuple[types.CodeType, types.ModuleType]] = {}


def preload(module: str) -> None:
    """Import what a task will need. An error is the task's own to meet, and to have in its log."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return
        if spec.submodule_search_locations:
            _ready[module] = _of_package(module, Path(spec.origin).with_name("__main__.py"))
        elif guarded := _guarded(Path(spec.origin)):
            _ready[module] = guarded, importlib.import_module(module)
    except (Exception, SystemExit):
        traceback.print_exc()


def _guarded(source: Path) -> types.CodeType | None:
    """The statements under `if __name__ == "__main__":`, when there are any."""
    tree = ast.parse(source.read_bytes())
    body = [
        inner
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for inner in node.body
    ]
    return compile(ast.Module(body, []), source, "exec") if body else None


def _of_package(module: str, main: Path) -> tuple[types.CodeType, types.ModuleType]:
    importlib.import_module(module)
    namespace = types.ModuleType("__main__")
    namespace.__dict__.update(__file__=str(main), __package__=module)
    return compile(main.read_bytes(), main, "exec"), namespace


def run(module: str) -> None:
    """Be this program, in this process."""
    if module not in _ready:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    code, namespace = _ready[module]
    sys.modules["__main__"] = namespace
    exec(code, namespace.__dict__)
