"""Imports go down only, and what must start fast imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hybridlab

PACKAGE = Path(hybridlab.__file__).parent
FLOORS = {
    "errors": 0, "config": 0, "build": 0, "type_check": 0, "validate": 0, "renamed": 0, "ops": 0, "records": 0, "report": 0,
    "mixers": 1,
    "stack": 2, "tasks": 2,
    "evaluation": 3,
    "training": 4,
    "bench": 5, "catalogue": 5, "task_catalogue": 5, "status": 5, "cli": 5, "__main__": 6,
}  # fmt: skip
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported in hybridlab_imports(file):
        assert FLOORS[imported] <= FLOORS[own], f"{own} imports {imported}"


def test_every_part_has_its_floor():
    assert {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} <= set(FLOORS)


@pytest.mark.parametrize(
    "module", ["hybridlab", "hybridlab.cli", "hybridlab.config", "hybridlab.records.store", "hybridlab.report"]
)
def test_what_starts_fast_imports_nothing_heavy(module):
    heavy = "{'torch', 'lightning', 'hydra', 'wandb', 'matplotlib', 'jinja2'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def hybridlab_imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hybridlab."):
            yield node.module.split(".")[1]
