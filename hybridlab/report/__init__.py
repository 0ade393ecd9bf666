"""Reports: a pure function of run records, for the terminal, as Markdown and as one page."""

from hybridlab.report.build import as_html as as_html
from hybridlab.report.build import as_markdown as as_markdown
from hybridlab.report.build import print_and_write as print_and_write
from hybridlab.report.build import print_sweep as print_sweep
from hybridlab.report.build import report as report
from hybridlab.report.build import show as show
from hybridlab.report.build import write as write
from hybridlab.report.content import Report as Report
