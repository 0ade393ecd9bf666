"""Add pages to the site at build time: conf/, sweeps/README.md, CONTRIBUTING.md, CHANGELOG.md."""

import re
from pathlib import Path
from typing import Any

import mkdocs.config.defaults as defaults
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FOLDER = "reference/configuration"
COPIES = {
    "changes.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "results.md": ROOT / "sweeps" / "README.md",
}


def on_config(config: defaults.MkDocsConfig) -> None:
    """List the groups of conf/ in the navigation, under Configuration."""
    pages = [{"The root": f"{FOLDER}/index.md"}, *({group: f"{FOLDER}/{group}.md"} for group in _groups())]
    _fill(config.nav or [], "Configuration", pages)


def on_files(files: Files, config: defaults.MkDocsConfig) -> None:
    """Add the pages that have no file under docs/."""
    content = {f"{FOLDER}/index.md": _root()}
    content |= {f"{FOLDER}/{group}.md": _page(group, folder) for group, folder in _groups().items()}
    content |= {name: _relinked(file.read_text()) for name, file in COPIES.items()}
    for name, text in content.items():
        files.append(File.generated(config, name, content=text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave docs/, which work in the repository, to the copies on the site."""
    for name, file in COPIES.items():
        markdown = markdown.replace(f"](../{file.relative_to(ROOT)})", f"]({name})")
    return markdown


def _groups() -> dict[str, Path]:
    """Return the folders of conf/ that hold options, by group: `stack`, `evaluation/measures`."""
    folders = sorted({file.parent for file in CONF.rglob("*.yaml")} - {CONF})
    return {folder.relative_to(CONF).as_posix(): folder for folder in folders}


def _root() -> str:
    return f"""\
# Configuration

Hydra composes a run's configuration from `conf/config.yaml` and one option of each group. `GROUP=OPTION` on the command
line chooses an option, `GROUP.KEY=VALUE` sets a value, and `hybridlab train --cfg job` prints the composed whole.
`--config-dir DIR` adds a folder of your own with the same groups.

{_yaml(CONF / "config.yaml")}
"""


def _page(group: str, folder: Path) -> str:
    """Return a group's page: each option with its YAML and the comments in it."""
    options = [f"## {file.stem}\n\n{_yaml(file)}" for file in sorted(folder.glob("*.yaml"))]
    return "\n\n".join([f"# {group}", f"The files of `conf/{group}/`, as they are.", *options]) + "\n"


def _yaml(file: Path) -> str:
    return f"```yaml\n{file.read_text().strip()}\n```"


def _relinked(text: str) -> str:
    """Return a page of the repository's root with its links into docs/ made relative to docs/."""
    return re.sub(r"\]\((?:\.\./)?docs/", "](", text)


def _fill(nav: list[Any], title: str, pages: list[dict[str, str]]) -> None:
    """Put `pages` under the entry of the navigation that is called `title`."""
    for entry in nav:
        if isinstance(entry, dict):
            for key, value in entry.items():
                if key == title:
                    entry[key] = pages
                elif isinstance(value, list):
                    _fill(value, title, pages)
