"""The training budget in the note of every table."""

from collections.abc import Sequence
from dataclasses import replace

from hybridlab.report.content import Section, Table


def with_training(sections: Sequence[Section], sentence: str) -> list[Section]:
    """Return the sections with a sentence on the training in the note of every table of numbers."""
    return [
        replace(section, tables=tuple(_noted(table, sentence) if table.numbers else table for table in section.tables))
        for section in sections
    ]


def _noted(table: Table, sentence: str) -> Table:
    return replace(table, note=f"{table.note} {sentence}".strip())
