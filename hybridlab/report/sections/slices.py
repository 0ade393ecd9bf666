"""Quality by every slice of the targets; position has a section of its own."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.headline import headline_of, quality
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.runs.titles import title
from hybridlab.report.sections.grids import Column, by_bucket, section_of, signed, tokens

ORDER = 50
APART = "position"
PICTURES = {"distance": Picture("nll_by_distance", "NLL by distance, intact and with each layer group ablated.")}


def section(stack: StackRuns) -> list[Section]:
    """Return a table per slice, prominent ones first: the intact stack, each group's ablation."""
    whole: dict[str, Filter] = {"grouping": "stack"}
    shown = quality(headline_of([stack]), [stack])
    ablated = [
        Column(f"Zero ablation\n{group}", "knockout", {"grouping": "group", "group": group, "part": "mixer"}, signed)
        for group in stack.groups
    ]
    sections = []
    slices = ((name, found) for name, found in stack.slices.items() if name != APART)
    for name, found in sorted(slices, key=lambda each: not each[1].prominent):
        words = name.replace("_", " ")
        table = by_bucket(
            stack,
            name,
            f"By {found.definition}; NLL added by zero ablation of each layer group's mixers. {how(stack.find('nll'))}",
            [
                Column("Tokens", "nll", whole, tokens),
                *(Column(title(stack.measures, measure), measure, whole) for measure in shown),
                *ablated,
            ],
            words.capitalize(),
        )
        pictures = [PICTURES[name]] if name in PICTURES else []
        sections += section_of(f"By {words}", table, *pictures, detail=not found.prominent)
    return sections
