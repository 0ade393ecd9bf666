import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hybridlab.errors import ConfigError
from hybridlab.records import store
from hybridlab.records.archive import read_archive
from hybridlab.records.found import STOPPED
from hybridlab.report import as_markdown, print_and_write, print_sweep, show
from hybridlab.report.figures.select import draw
from hybridlab.report.sweeps import readme as sweeps_readme
from hybridlab.report.sweeps import table as sweep_table
from hybridlab.report.sweeps.spec import parse, read_sweep
from hybridlab.report.sweeps.table import of_sweep
from tests.report.examples import measurement, run
from tests.report.sweeps.test_claims import FILE, PAPER, runs

SWEEPS = Path(__file__).parents[3] / "sweeps"
RECORDS = [record for name, accuracy in PAPER.items() for record in runs(name, accuracy)]


def terminal(found):
    console = Console(width=100, file=io.StringIO())
    show(found, console)
    return console.file.getvalue()


def test_each_row_stands_beside_the_papers_figure():
    found = of_sweep(parse(FILE), RECORDS)
    (body,) = found.sections[0].tables[0].bodies
    assert [line[:3] for line in body] == [
        ("window 8", "0.081", "0.101"),
        ("window 16", "0.145", "0.2003"),
        ("window 32", "0.31", "0.5003"),
        ("full", "1†", "1.000"),
    ]
    assert [line[-1] for line in body] == ["3"] * 4
    assert all(line[3].startswith("[") for line in body)
    assert "grade A: primary source" in found.sections[0].tables[0].note
    assert "grade C: one third-party transcription, marked †" in found.sections[0].tables[0].note
    assert found.subtitle == "12 runs, 3 seeds, on CPU"
    assert "where the paper mixes lengths" in found.warnings[0]


def test_each_claim_has_its_figures_and_its_word():
    found = of_sweep(parse(FILE), RECORDS)
    table = found.sections[1].tables[0]
    by_claim = {line[0]: line[1:] for line in table.bodies[0]}
    assert by_claim["from 16 to 32 adds a tenth or more"][:2] == ("window 32 − window 16", "0.165")
    assert by_claim["from 16 to 32 adds a tenth or more"][-1] == "holds"
    assert by_claim["a window of 32 is as good as full"][1] == "−0.69†"
    assert by_claim["a window of 32 is as good as full"][-1] == "does not hold"
    assert "m = 5 claims" in table.note


def test_the_figure_has_what_was_measured_and_the_papers_beside_it():
    axes = draw(of_sweep(parse(FILE), RECORDS).figures)["table"].axes[0]
    measured, paper = axes.containers[0].lines[0], axes.collections[-1]
    assert list(measured.get_xdata()) == pytest.approx([0.101, 0.2003, 0.5003, 0.9997], abs=1e-3)
    assert [x for x, _ in paper.get_offsets().tolist()] == [0.081, 0.145, 0.31, 1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(PAPER)


def test_what_the_authors_make_of_it_stands_below(tmp_path):
    (tmp_path / "demo.yaml").write_text(
        FILE.read_text().replace("measure: acc", "discussion: As expected.\n  measure: acc")
    )
    found = of_sweep(parse(tmp_path / "demo.yaml"), RECORDS)
    assert "As expected." in terminal(found)
    assert "As expected." in as_markdown(found)


def test_the_table_fits_the_terminal():
    text = terminal(of_sweep(parse(FILE), RECORDS))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_columns_are_numbers_of_the_same_stack(tmp_path):
    (tmp_path / "demo.yaml").write_text("""
table:
  measure: perplexity
  rows: {attention: {early: full}, hyena: {early: hyena}}
  columns: {overall: {}, recall: {slice: recall, bucket: recall}}
published: [{paper: Zoology, grade: C, figures: {hyena: {overall: 11.6, recall: 5.0}}}]
claims:
  recall is harder: {left: {row: hyena, column: recall}, relation: <, right: {row: hyena, column: overall}}
""")
    stacks = {"full": (9.0, 2.0), "hyena": (11.0, 4.0)}
    records = [
        run(
            {"stack.groups.early.mixer": mixer},
            seed,
            [
                measurement("perplexity", whole + seed),
                measurement("perplexity", recall + seed, slice="recall", bucket="recall"),
            ],
        )
        for mixer, (whole, recall) in stacks.items()
        for seed in (0, 1)
    ]
    found = of_sweep(parse(tmp_path / "demo.yaml"), records)
    table = found.sections[0].tables[0]
    assert table.text == ("Row", "Column")
    assert [line[:4] for line in table.bodies[1]] == [
        ("hyena", "overall", "11.6†", "11.5"),
        ("hyena", "recall", "5†", "4.5"),
    ]
    (claim,) = found.sections[1].tables[0].bodies[0]
    assert claim[1:4] == ("hyena (recall) − hyena (overall)", "−6.6†", "−7.0000")
    panels = draw(found.figures)[
        "table"
    ].axes  # and no scale for the one figure of the paper, which compares with nothing
    assert [axes.get_xlabel() for axes in panels] == ["perplexity, overall", "perplexity, recall"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["attention", "hyena"]


def test_each_column_has_an_axis_of_its_own_and_so_has_a_paper_whose_levels_do_not_compare(tmp_path):
    (tmp_path / "demo.yaml").write_text("""
table:
  measure: perplexity
  rows: {attention: {early: full}, hyena: {early: hyena}}
  columns: {overall: {}, knockout early: {measure: knockout, grouping: group, group: early, part: mixer}}
published: [{paper: Zoology, grade: A, figures: {attention: {overall: 11.5}, hyena: {overall: 11.6}}}]
""")
    knockout = measurement("knockout", 0.2, grouping="group", group="early", part="mixer")
    records = [
        run({"stack.groups.early.mixer": "full"}, seed, [measurement("perplexity", 9 + seed), knockout])
        for seed in (0, 1)
    ]
    found = of_sweep(parse(tmp_path / "demo.yaml"), records)
    assert found.sections[0].tables[0].caption.startswith("The perplexity and the knockout of each row")
    perplexity, added, paper = draw(found.figures)["table"].axes
    words = ["perplexity, overall", "knockout early", "paper"]
    assert [axes.get_xlabel() for axes in (perplexity, added, paper)] == words
    assert list(added.containers[0].lines[0].get_xdata()) == [0.2]
    assert [label.get_text() for label in perplexity.get_yticklabels()] == ["attention", "hyena"]
    assert paper.collections[0].get_offsets().tolist() == [[11.5, 0], [11.6, 1]]


def test_stacks_are_called_by_their_rows_and_where_a_row_has_several_by_their_columns(tmp_path):
    (tmp_path / "demo.yaml").write_text("""
table:
  measure: accuracy
  rows: {attention: {early: full}, "hyena, wide": {early: hyena}}
  columns: {short: {length: 16}, long: {length: 64}}
""")
    stacks = [("full", 16), ("full", 64), ("hyena", 16)]
    records = [
        run(
            {"stack.groups.early.mixer": mixer, "task.length": length, "optimizer.lr": lr},
            seed=0,
            measurements=[measurement("accuracy", 0.5)],
            validation=lr,
        )
        for mixer, length in stacks
        for lr in (0.1, 0.2)
    ]
    sections = {section.title: section for section in of_sweep(parse(tmp_path / "demo.yaml"), records).sections}
    named = [body[0][0] for body in sections["Tuning"].tables[0].bodies]
    assert named == ["attention, short", "attention, long", "hyena, wide"]


def test_rows_without_runs_and_runs_without_a_row_are_named():
    records = [record for name in ("window 8", "full") for record in runs(name, PAPER[name])]
    found = of_sweep(parse(FILE), [*records, *runs("window 64", 0.9)])
    (body,) = found.sections[0].tables[0].bodies
    assert body[1] == ("window 16", "0.145", "–", "–", "0")
    assert "Stacks that are in no row of the table: 1." in found.warnings
    assert found.sections[1].tables[0].bodies[0][0][-1] == "undecided"


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("window: 8}", "windw: 8}", "no choice is called `windw`; did you mean `window`?"),
        ("measure: accuracy", "measure: acuracy", "no measure is called `acuracy`; did you mean `accuracy`?"),
        (
            "measure: accuracy",
            "measure: accuracy\n  slice: lenght",
            "no slice is called `lenght`; did you mean `length`?",
        ),
        (
            "right: 0.99",
            "right: {row: window 8, slice: length, bucket: 16-32}",
            "no bucket of `length` is called `16-32`; did you mean `16-31`?",
        ),
    ],
)
def test_a_name_that_no_record_has_is_a_warning_with_the_near_miss(tmp_path, old, new, warning):
    text = FILE.read_text()
    assert old in text
    (tmp_path / "demo.yaml").write_text(text.replace(old, new))
    sliced = run({"task.length": 64}, 0, [measurement("accuracy", 0.5, slice="length", bucket="16-31")])
    found = of_sweep(parse(tmp_path / "demo.yaml"), [*RECORDS, sliced])
    assert f"In these runs {warning}" in found.warnings
    assert not any("In these runs" in line for line in of_sweep(parse(FILE), [*RECORDS, sliced]).warnings)


def test_while_no_run_has_finished_no_measure_is_unknown():
    found = of_sweep(parse(FILE), [run({"task.length": 64}, 0, [], status="running")])
    assert not any("no measure" in line for line in found.warnings)


def test_a_grade_c_figure_decides_nothing(tmp_path):
    text = FILE.read_text()
    (tmp_path / "demo.yaml").write_text(text.replace("{full: 1.0}", "{full: 0.0}"))
    one, other = (of_sweep(parse(file), RECORDS).sections[1].tables[0] for file in (FILE, tmp_path / "demo.yaml"))
    assert [line[3:] for line in one.bodies[0]] == [line[3:] for line in other.bodies[0]]


def test_the_report_on_a_sweeps_folder_ends_with_its_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "mqar_window.yaml").write_text(FILE.read_text())
    for module in ("hybridlab.report.sweeps.spec", "hybridlab.report.sweeps.table"):
        monkeypatch.setattr(f"{module}.sweep_files", lambda: {"mqar_window": tmp_path / "mqar_window.yaml"})
    for place, record in enumerate(RECORDS):
        store.write(record, tmp_path / "mqar_window" / str(place))
    print_and_write(tmp_path / "mqar_window")
    shown = capsys.readouterr().out
    assert shown.index("highest accuracy first") < shown.index("Claim") < shown.index("sweep.html")


def test_a_sweep_that_builds_on_another_takes_over_what_it_does_not_say(tmp_path, monkeypatch):
    (tmp_path / "larger.yaml").write_text(
        "defaults: [mqar_window, {override /task: mqar}, _self_]\n"
        "table: {note: Larger., rows: {window 8: {window: 16}}}\n"
    )
    monkeypatch.setattr("hybridlab.report.sweeps.spec.sweep_files", lambda: {"mqar_window": FILE})
    base, larger = parse(FILE), parse(tmp_path / "larger.yaml")
    assert (larger.name, larger.note) == ("larger", "Larger.")
    assert (larger.title, larger.published) == (base.title, base.published)
    assert [claim.words for claim in larger.claims] == [claim.words for claim in base.claims]
    assert larger.cells["window 8", ""].choices == base.cells["window 16", ""].choices


def test_a_sweep_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"`--sweep early_mixr`: no such sweep; did you mean `early_mixer`\?"):
        read_sweep("early_mixr")
    with pytest.raises(ConfigError, match=r"sweeps/early_mixer\.yaml: no `table`"):
        read_sweep("early_mixer")


def test_reference_records_are_packed_and_read_by_default(tmp_path, monkeypatch, capsys):
    (tmp_path / "mqar_window.yaml").write_text(FILE.read_text())
    for module in ("hybridlab.report.sweeps.spec", "hybridlab.report.sweeps.table", "hybridlab.report.sweeps.readme"):
        monkeypatch.setattr(f"{module}.sweep_files", lambda: {"mqar_window": tmp_path / "mqar_window.yaml"})
    assert "No reference records yet." in sweeps_readme.render()
    for place, record in enumerate(RECORDS):
        made = replace(record, config=record.config | {"runs": str(tmp_path)})
        store.write(made, tmp_path / "runs" / str(place))
    print_sweep("mqar_window", tmp_path / "runs", keep=True)
    assert all(record.config["runs"] == "runs" for record in read_archive(sweep_table.reference("mqar_window")))
    first = capsys.readouterr().out
    pages = [tmp_path / "runs" / "sweep.md", tmp_path / "runs" / "sweep.html"]
    assert first.endswith("".join(f"{path}\n" for path in (*pages, sweep_table.reference("mqar_window"))))
    assert pages[0].read_text().startswith("# mqar_window: MQAR accuracy by the window")
    print_sweep("mqar_window")
    assert first.startswith(capsys.readouterr().out)
    page = sweeps_readme.render()
    assert "| window 8 | 0.081 | 0.101 |" in page
    assert "| holds |" in page
    assert sweeps_readme.write_readme().read_text() == page


def test_the_two_sizes_of_a_sweep_are_told_apart(monkeypatch):
    files = dict.fromkeys(("mqar_window", "mqar_window_h100"), FILE)
    monkeypatch.setattr(sweeps_readme, "sweep_files", lambda: files)
    monkeypatch.setattr(sweeps_readme, "reference", lambda name: FILE.with_name(f"no {name}"))
    titles = [line for line in sweeps_readme.render().splitlines() if line.startswith("## ")]
    assert titles == ["## mqar_window: sized for a CPU", "## mqar_window_h100: sized for one H100"]


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_what_a_sweep_says_to_its_report_means_something(file):
    sweep = parse(file)
    assert sweep is None or sweep.cells


def test_the_docs_show_a_sweep_that_is_there_and_claims_that_are_taken(tmp_path):
    whole, larger, claims = re.findall(
        r"```yaml\n(.*?)```", (SWEEPS.parent / "docs" / "sweeps.md").read_text(), re.DOTALL
    )
    assert whole == (SWEEPS / "mqar_window.yaml").read_text()
    (tmp_path / "mqar_window_h100.yaml").write_text(larger)
    shown, there = parse(tmp_path / "mqar_window_h100.yaml"), parse(SWEEPS / "mqar_window_h100.yaml")
    assert [cell.choices for cell in shown.cells.values()] == [cell.choices for cell in there.cells.values()]
    table = "table: {measure: nll, rows: {attention: {mixer: full}, hyena: {mixer: hyena}}}\n"
    (tmp_path / "demo.yaml").write_text(table + claims)
    assert len(parse(tmp_path / "demo.yaml").claims) == 3


@pytest.mark.slow
def test_the_page_of_the_sweeps_is_what_their_records_say():
    assert (SWEEPS / "README.md").read_text() == sweeps_readme.render(), "hybridlab report --sweeps-readme"


def test_a_run_whose_launcher_is_gone_is_stopped_in_a_sweeps_report(tmp_path):
    killed = replace(run({"all": "full"}, 0, [], status="running"), reason="")
    store.write(killed, tmp_path / "killed")
    sections = {section.title: section for section in sweep_table.sweep_report("mqar_window", tmp_path).sections}
    ((line,),) = sections["Not finished"].tables[0].bodies
    assert line[2] == "stopped"
    assert STOPPED in line


def test_what_the_table_shows_is_what_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_table, "sweep_files", lambda: {"mqar_window": tmp_path / "mqar_window.yaml"})
    store.write(run({"all": "full"}, 0, [], status="running"), tmp_path / "killed")
    kept = read_archive(sweep_table.keep_reference("mqar_window", tmp_path))
    assert [record.status for record in kept] == ["stopped"]
