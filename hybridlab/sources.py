"""Classes from outside hybridlab and their source: the module, and the modules beside it that it
imports.
"""

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

EXTENSIONS = (".py", ".so", ".pyd")
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib"))

LIBRARIES = ("hybridlab", "torch", "lightning")  # a record states their versions

_digests: dict[Any, str] = {}  # by the loaded class: a file that is edited later is not what this process runs


def is_outside(target: Any) -> bool:
    """Return whether a class comes from neither hybridlab nor the libraries it trains with."""
    return target.__module__.partition(".")[0] not in LIBRARIES


def source_digest(target: Any) -> str:
    """Return the SHA-256 of what defines a class or function.

    That is the source of its module and of all modules that this one imports, directly or by way of
    others, from the same folder tree: the folder of its top-level package or module. Of an
    installed package it is the source of the module and the package's version.
    """
    if target not in _digests:
        _digests[target] = _digest(target)
    return _digests[target]


def _digest(target: Any) -> str:
    module = sys.modules.get(target.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:  # defined in a notebook or at a prompt
        try:
            return hashlib.sha256(inspect.getsource(target).encode()).hexdigest()
        except (OSError, TypeError):
            return hashlib.sha256(f"{target.__module__}.{target.__qualname__}".encode()).hexdigest()
    path = Path(file).resolve()
    name = module.__name__ if module.__name__ != "__main__" else path.stem
    root = _root(path, name)
    parts = {path.relative_to(root).as_posix(): path}
    top = name.partition(".")[0]
    if any(root.is_relative_to(folder) for folder in INSTALLED):
        distributions = sorted(packages_distributions().get(top, ()))
        known = [f"{distribution} {version(distribution)}" for distribution in distributions]
    else:
        known = []
        waiting = [(path, name)]
        while waiting:
            for found, imported in _imports(*waiting.pop(), root):
                if (key := found.relative_to(root).as_posix()) not in parts:
                    parts[key] = found
                    waiting.append((found, imported))
    each = [f"{key} {hashlib.sha256(found.read_bytes()).hexdigest()}" for key, found in sorted(parts.items())]
    return hashlib.sha256("\n".join([*known, *each]).encode()).hexdigest()


def _root(path: Path, name: str) -> Path:
    """Return the folder that the top-level package of a module lies in."""
    depth = name.count(".") + (path.name == "__init__.py")
    return path.parents[depth]


def _imports(path: Path, name: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files below `root` that a module imports, with their dotted names; imports inside
    functions count.
    """
    if path.suffix != ".py":
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module or ""]))
            names = [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        for each in filter(None, names):
            yield from _files(each, root)


def _files(name: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a dotted module below `root`, those of the packages that hold it first."""
    words = name.split(".")
    if words[0] == "hybridlab":  # in a checkout it may lie beside the user's modules
        return
    for count in range(1, len(words) + 1):
        at, dotted = root.joinpath(*words[:count]), ".".join(words[:count])
        candidates = [at / "__init__.py", *(at.with_name(f"{at.name}{end}") for end in EXTENSIONS)]
        candidates += sorted(at.parent.glob(f"{at.name}.*.so")) if at.parent.is_dir() else []
        for file in candidates:
            if file.is_file():
                yield file.resolve(), dotted
                break
