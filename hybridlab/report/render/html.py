"""The report as one self-contained page: no script, no font, no picture from elsewhere."""

from pathlib import Path

from hybridlab.report.content import Report
from hybridlab.report.figures.style import inline_svg

TEMPLATE = "page.html.jinja"


def page(report: Report) -> str:
    """Return the page; every text in it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {name: Markup(inline_svg(figure, name)) for name, figure in report.figures().items()}
    return environment.get_template(TEMPLATE).render(report=report, pictures=pictures)
