"""Imports go down only, no circle is left, and what must start fast imports nothing heavy."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import hybridlab

PACKAGE = Path(hybridlab.__file__).parent
FLOORS = {
    "errors": 0, "validate": 0, "type_check": 0, "renamed": 0, "config": 0, "build": 0, "sources": 0, "stdout": 0, "ops": 0, "records": 0,
    "report": 1,
    "mixers": 1,
    "stack": 2, "tasks": 2,
    "evaluation": 3,
    "training": 4,
    "api": 5, "bench": 5, "catalogue": 5, "task_catalogue": 5, "measure_catalogue": 5, "status": 5,
    "cli": 6, "__init__": 6, "__main__": 7,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
# The folders of a part in their order: a later one may import an earlier one.
ROOMS = {
    "ops": ("kernels", "conv", "ssm", "linear", "attention"),
    "evaluation": ("passes", "measures", "cost", "leak"),
    "tasks": ("text", "synthetic", "lra"),
    "report": ("runs", "figures", "sections", "render", "sweeps"),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    own = floor_of(name_of(file))
    for imported in imports_of(file):
        assert FLOORS[floor_of(imported)] <= FLOORS[own], f"{own} imports {imported}"


def test_every_part_has_its_floor():
    assert {floor_of(name_of(file)) for file in FILES} == set(FLOORS)


def test_no_file_imports_itself_by_way_of_others():
    graph = {name_of(file): set(imports_of(file)) for file in FILES}
    for start in graph:
        seen, waiting = set(), list(graph[start])
        while waiting:
            name = waiting.pop()
            assert name != start, f"{start} imports itself by way of {sorted(seen)}"
            if name not in seen:
                seen.add(name)
                waiting += graph.get(name, ())


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_of_a_part_import_one_another_in_one_order(part):
    rooms = ROOMS[part]
    assert {folder.name for folder in (PACKAGE / part).iterdir() if (folder / "__init__.py").exists()} == set(rooms)
    for file in FILES:
        own = room_of(name_of(file), part)
        for imported in imports_of(file):
            other = room_of(imported, part)
            if own in rooms and other in rooms:
                assert rooms.index(other) <= rooms.index(own), f"{name_of(file)} imports {imported}"


@pytest.mark.parametrize(
    "module", ["hybridlab", "hybridlab.cli", "hybridlab.config", "hybridlab.records.store", "hybridlab.report"]
)
def test_what_starts_fast_imports_nothing_heavy(module):
    heavy = "{'torch', 'lightning', 'hydra', 'wandb', 'matplotlib', 'jinja2', 'pandas', 'beartype'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def name_of(file):
    """Return a file's module below the package, e.g. `ops.linear.delta_rule`."""
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def floor_of(name):
    return name.partition(".")[0]


def room_of(name, part):
    """Return the folder of a part that a file lies in, or nothing."""
    floor, _, rest = name.partition(".")
    return rest.partition(".")[0] if floor == part else ""


@cache
def imports_of(file):
    """Yield the modules that a file imports, in functions too, but not for type checking only."""
    tree = ast.parse(file.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and id(node) not in typing_only
            and (node.module or "").startswith("hybridlab")
        ):
            module = node.module.removeprefix("hybridlab").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}" if module else alias.name
                if inner in NAMES or module:
                    found.append(inner if inner in NAMES else module)
    return found


NAMES = {name_of(each) for each in FILES}
