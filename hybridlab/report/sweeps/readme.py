"""sweeps/README.md, rendered only from the sweeps' files and their reference records."""

from pathlib import Path

from hybridlab.config import sweep_files
from hybridlab.records.archive import read_archive
from hybridlab.records.atomic import write_text
from hybridlab.report.render.markdown import table_parts
from hybridlab.report.sweeps.spec import Sweep, parse
from hybridlab.report.sweeps.table import of_sweep, reference

H100 = "_h100"
HEAD = """\
# Sweeps

Made by `hybridlab report --sweeps-readme` from the sweeps' files and the reference records beside them; a test
compares. `hybridlab train +sweeps=NAME` runs a sweep, `hybridlab report --sweep NAME` prints its table. To write one:
docs/sweeps.md.
"""


def write_readme() -> Path:
    """Write sweeps/README.md and return it."""
    path = next(iter(sweep_files().values())).with_name("README.md")
    write_text(path, render())
    return path


def render() -> str:
    """Return the page: the table and claims of each sweep, measured from its reference records."""
    parts = [HEAD.strip()]
    for name, file in sweep_files().items():
        sweep = parse(file)
        parts += [
            f"## {_heading(name)}",
            *(
                _with_table(sweep)
                if sweep
                else [f"No table of its own; `hybridlab report runs/{name}` compares its runs."]
            ),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(name: str) -> str:
    """Return a sweep's name, with its size if there are two."""
    if name.endswith(H100):
        return f"{name}: sized for one H100"
    return f"{name}: sized for a CPU" if name + H100 in sweep_files() else name


def _with_table(sweep: Sweep) -> list[str]:
    if not reference(sweep.name).is_file():
        return [f"{sweep.title}. {sweep.note}".strip(), "No reference records yet."]
    found = of_sweep(sweep, read_archive(reference(sweep.name)))
    notes = [f"> **Note.** {warning}" for warning in found.warnings]
    parts = [f"{sweep.title}.", f"{found.subtitle}.", *notes]
    for section in found.sections:
        if not section.detail:
            parts += [*section.text, *(part for table in section.tables for part in table_parts(table))]
    return parts
