"""The report as Markdown."""

import re

from hybridlab.report.content import Report, Section, Table


def markdown(report: Report) -> str:
    """Return the report without its figures, with tables in GitHub's syntax."""
    parts = [f"# {_text(report.title)}", _text(report.subtitle)]
    parts += [f"> **Note.** {_text(warning)}" for warning in report.warnings]
    if report.headline:
        parts.append("\n".join(f"- {fact.label}: **{_text(fact.value)}**" for fact in report.headline))
        parts.append(_text(report.statement))
    for section in report.sections:
        parts += _section(section)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {_text(section.title)}", *map(_text, section.text)]
    for table in section.tables:
        parts += table_parts(table)
    if section.code:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", section.code)), default=0))
        parts.append(f"{fence}json\n{section.code}\n{fence}")
    return parts


def table_parts(table: Table) -> list[str]:
    """Return the paragraphs of a table: caption, the table itself, note."""
    return [f"**{_text(table.caption)}**", _table(table), _text(table.note)]


def _table(table: Table) -> str:
    lines = [(*table.text, *table.numbers), tuple(["---"] * len(table.text) + ["--:"] * len(table.numbers))]
    lines += [row for body in table.bodies for row in body]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Return text on one line, with all characters of Markdown and HTML escaped."""
    return re.sub(r"([\\`*<&#]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1", " ".join(text.split()))
