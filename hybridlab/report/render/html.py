"""The report as one self-contained page, without scripts, fonts or pictures from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hybridlab.report.content import Report
from hybridlab.report.figures.style import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "page.html.jinja"


def page(report: Report, figures: "Mapping[str, Figure]") -> str:
    """Return the page with these figures, by name; every text in it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {name: Markup(inline_svg(figure, name)) for name, figure in figures.items()}
    return environment.get_template(TEMPLATE).render(report=report, pictures=pictures)
