"""Prose in Markdown and YAML wraps at 100 columns, except URLs and commands. Python: ruff W505."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = 100
GENERATED = {ROOT / "sweeps" / "README.md"}
MARKDOWN = sorted({*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), *(ROOT / "docs").rglob("*.md")} - GENERATED)
YAML = sorted([*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml"), *ROOT.glob("*.yml")])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def too_long(lines: list[tuple[int, str]]) -> list[str]:
    """Return the lines beyond column 100 that have a space to wrap at and hold no URL."""
    return [
        f"{number}: {line}"
        for number, line in lines
        if len(line) > COLUMNS and "://" not in line and " " in line.lstrip(" #-")[:COLUMNS]
    ]


def prose_of_markdown(text: str) -> list[tuple[int, str]]:
    """Return the lines outside code blocks and tables."""
    lines, in_code = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        in_code ^= line.lstrip().startswith("```")
        if not in_code and not line.lstrip(" >").startswith(("|", "```")):
            lines.append((number, line))
    return lines


def prose_of_yaml(text: str) -> list[tuple[int, str]]:
    """Return the lines that hold only a comment and those of folded texts, but no commands."""
    lines, indent = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        depth = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        if indent is not None or line.lstrip().startswith("#"):
            lines.append((number, line))
        elif re.search(r"(note|discussion|source): >-$", line):
            indent = depth
    return [(number, line) for number, line in lines if "hybridlab train " not in line]


@pytest.mark.parametrize("path", MARKDOWN, ids=named)
def test_markdown_wraps(path):
    assert not too_long(prose_of_markdown(path.read_text()))


@pytest.mark.parametrize("path", YAML, ids=named)
def test_yaml_wraps(path):
    assert not too_long(prose_of_yaml(path.read_text()))


def test_a_long_line_is_found():
    long = "so much to say " * 8
    assert too_long(prose_of_markdown(f"# Title\n\n{long}\n"))
    assert not too_long(prose_of_markdown(f"```\n{long}\n```\n| {long} |\n"))
    assert too_long(prose_of_yaml(f"# {long}\n"))
    assert too_long(prose_of_yaml(f"table:\n  note: >-\n    {long}\n"))
    assert not too_long(prose_of_yaml(f"key: {long}\n"))
