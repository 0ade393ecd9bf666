"""Quality by every fact about the targets that a task tells, position aside, which has tables of its own."""

from hybridlab.records.slices import SLICES, UNITS
from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.headline import TITLES, columns, headline_of
from hybridlab.report.runs.stack_runs import Place, StackRuns
from hybridlab.report.sections.grids import Column, by_bucket, section_of, signed, tokens

SHOWN_APART = ("position", "context", "lag")
IN_THE_TERMINAL = ("recall", "pairs")


def slice_sections(stack: StackRuns) -> list[Section]:
    """Return a table for each slice: the intact stack, and each layer group knocked out."""
    told = [name for name, kind in SLICES.items() if kind.buckets != UNITS and name not in SHOWN_APART]
    told.sort(key=lambda name: name not in IN_THE_TERMINAL)
    shown = [*columns(headline_of([stack]), [stack]), *(["streamed_nll"] if stack.find("streamed_nll") else [])]
    silent = [
        Column(f"knockout\n{group}", "knockout", {"grouping": "group", "group": group, "part": "mixer"}, signed)
        for group in stack.groups
    ]
    whole: dict[str, Place] = {"grouping": "stack"}
    sections = []
    for name in told:
        table = by_bucket(
            stack,
            name,
            f"By {SLICES[name].definition}; each layer group's mixers knocked out (NLL added). {how(stack.find('nll'))}",
            [Column("Tokens", "nll", whole, tokens), *(Column(TITLES[m], m, whole) for m in shown), *silent],
            name.replace("_", " ").capitalize(),
        )
        picture = Picture("nll_by_distance", "NLL by distance, intact and with each layer group knocked out.")
        pictures = [picture] if name == "distance" else []
        sections += section_of(f"By {name.replace('_', ' ')}", table, *pictures, detail=name not in IN_THE_TERMINAL)
    return sections
