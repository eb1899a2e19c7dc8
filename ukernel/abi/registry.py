"""registry: from the name after `serves:` to the interface. The only place that imports by name."""

from __future__ import annotations

import difflib
import importlib

from ukernel.abi.interface import Interface, is_interface
from ukernel.abi.manifest import BUILTIN_INTERFACES


def resolve_interface(name: str) -> type[Interface]:
    """The interface called `name`: a built-in name, or `package.module:Class`, which is imported.

    Raises LookupError with a text that says what is wrong and what to write instead.
    """
    if ":" in name:
        return _imported(name)
    try:
        return BUILTIN_INTERFACES[name]
    except KeyError:
        raise LookupError(f"no interface {name!r}{_remedy(name)}") from None


def _remedy(name: str) -> str:
    close = difflib.get_close_matches(name, BUILTIN_INTERFACES, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; built in are {', '.join(BUILTIN_INTERFACES)}; write your own as package.module:Class"


def _imported(name: str) -> type[Interface]:
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise LookupError(f"no interface {name!r}; write it as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module is the user's: it may raise anything
        why = f"{type(error).__name__}: {error}"
        raise LookupError(f"no interface {name!r}: importing {module_name} raised {why}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise LookupError(f"no interface {name!r}: {module_name} has no class {class_name}")
    if not is_interface(found) or not found.ops:
        raise LookupError(
            f"{name!r} is no interface; derive it from ukernel.abi.interface.Interface and mark"
            " its calls with @op"
        )
    interface: type[Interface] = found
    return interface
