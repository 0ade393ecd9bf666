import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from hybridlab.errors import ConfigError
from hybridlab.records import store
from hybridlab.report import as_html, as_markdown, build, print_and_write, report, show, write
from tests.records.examples import small_record
from tests.report.examples import example, fully_evaluated

VOID = {"meta", "link", "use"}


class Page(HTMLParser):
    """Checks that tags are closed, and collects what a page would load and what a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.seen = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen.append(data)


@pytest.fixture
def folder(tmp_path):
    def write_all(*records):
        for record in records:
            store.write(record, tmp_path / record.run_id)
        return tmp_path

    return write_all


def sweep():
    records = [example(early=early, seed=seed) for seed in (0, 1) for early in ("full", "mamba2", "gated_conv")]
    records.append(example(early="linear", status="diverged", reason="DivergedError: the loss is nan at step 12"))
    return [*records, example(early="full", seed=2, status="failed", reason="OutOfMemoryError: no memory")]


def terminal(found, width=100):
    console = Console(width=width, file=io.StringIO())
    show(found, console)
    return console.file.getvalue()


def test_one_run_shows_quality_by_layer_group(folder):
    text = terminal(report(folder(example())))
    assert "Quality by layer group" in text
    assert re.search(
        r"^early +0–1 +2 × +394k +438M +70\.7k +2\.7\d\d +\+0\.\d{3} +\+0\.\d{3} 4\.62$", text, re.MULTILINE
    )
    assert re.search(r"^mamba2 +2, 4 +2 layers", text, re.MULTILINE)
    assert "bootstrap over 23" in text
    assert "in windows of 512 tokens every 512" in text
    assert re.search(r"bytes, 3 of context +2\.389", text)


@pytest.mark.parametrize("records", [[example()], sweep()], ids=["one", "several"])
def test_tables_fit_the_terminal(folder, records):
    wide = terminal(report(folder(*records)))
    assert max(map(len, wide.splitlines())) <= 100
    narrow = terminal(report(folder(*records)), width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in wide + narrow
    assert set(re.findall(r"[+−]?\d+\.\d+", wide)) >= set(re.findall(r"[+−]?\d+\.\d+", narrow))


def test_several_runs_are_one_row_per_stack(folder):
    text = terminal(report(folder(*sweep()), "early=full"))
    rows = re.findall(r"^(full \(base\)|\w+) +(\d \w+(?:, \d \w+)?) +([\d.–]+) ", text, re.MULTILINE)
    assert [(name, runs) for name, runs, _ in rows] == [
        ("full (base)", "2 finished, 1 failed"),
        ("mamba2", "2 finished"),
        ("gated_conv", "2 finished"),
        ("linear", "1 diverged"),
    ]
    assert re.search(r"early +full +gated_conv +", text)
    assert "bytes, 1 of context 3.391; bytes, 2 of context 2.804" in re.sub(r"\s+", " ", text)
    assert re.search(r"early = linear +0 +diverged +DivergedError: the loss is nan at step 12", text)
    assert re.search(r"early = full +2 +failed +OutOfMemoryError: no memory", text)


def test_stacks_are_compared_by_layer_group():
    records = [fully_evaluated(example(early=early, seed=seed)) for early in ("full", "linear") for seed in (0, 1)]
    section = next(section for section in build.of_records(records).sections if section.title == "By layer group")
    knockout, reach, memory = section.tables
    assert knockout.numbers == reach.numbers == memory.numbers == ("early", "middle", "deep")
    assert reach.bodies == ((("full", "256", "256", "64"), ("linear", "64", "256", "64")),)
    assert memory.bodies[0][1][1].startswith("15.0")


def test_data_are_alike_or_not_among_the_runs_of_one_task():
    """Tasks of unlike settings have unlike data: that is the choice that was made."""

    def made(seed, task, documents):
        one = example(seed=seed)
        config, hardware = one.config | {"task": task}, one.hardware | {"task": {"documents": documents}}
        return example(seed=seed, config=config, hardware=hardware)

    def warnings(*records):
        return " ".join(build.of_records(list(records)).warnings)

    short, long = {"length": 512}, {"length": 1024}
    assert "equal conditions" not in warnings(made(0, short, 187), made(0, long, 190))
    assert "differ in hardware.task.documents (187 or 190)" in warnings(made(0, short, 187), made(1, short, 190))


def test_unequal_sizes_and_conditions_are_warned_of(folder):
    later = {"created": "2025-03-02T10:00:00+00:00"}
    records = [
        example(),
        example(early="mamba2", commit="another", **later),
        example(early="full", versions={"torch": "2.11"}, **later),
    ]
    warnings = report(folder(*records)).warnings
    assert warnings[0].startswith(
        "The stacks differ in size: early = mamba2 has 1.59M parameters, 7.2 % more than early = "
    )
    assert "commit (4f1c2a90b7d3e5f60718293a4b5c6d7e8f901234 or another)" in warnings[1]
    assert "torch (2.13.0 or 2.11)" in warnings[1]
    assert warnings[2].startswith("Every stack has one seed")
    assert report(folder(example())).warnings != ()


def test_like_runs_need_no_warning(folder):
    assert (
        report(folder(*(example(early=early, seed=seed) for early in ("full", "linear") for seed in (0, 1)))).warnings
        == ()
    )


def test_a_copy_of_a_run_is_no_further_evidence(folder, tmp_path):
    folder(example(seed=0), example(seed=1))
    store.write(example(seed=1), tmp_path / "copy")
    found = report(tmp_path)
    assert "Means over 2 seeds" in found.sections[0].tables[0].caption
    assert found.warnings == (
        "Finished runs that repeat a seed of the same stack: 1. Of each seed, only the run made first counts.",
    )


@pytest.mark.parametrize("status", ["failed", "diverged", "stopped"])
def test_a_run_that_did_not_finish_is_reported(folder, status):
    record = example(status="running" if status == "stopped" else status, reason="one reason")
    found = report(folder(record))
    expected = f"Run {record.run_id}, seed 0: {status}, one reason."
    assert found.warnings == (expected,)
    assert expected in re.sub(r"\s+", " ", terminal(found))
    assert "one reason" in as_markdown(found)
    Page(as_html(found))


def test_a_record_with_nothing_in_it_is_reported(folder):
    found = report(folder(small_record()))
    assert "demo" in terminal(found)
    assert "# demo" in as_markdown(found)
    Page(as_html(found))


def test_the_base_can_be_chosen(folder):
    path = folder(*sweep())
    assert "(early = mamba2)" in terminal(report(path, "early=mamba2"))
    with pytest.raises(ConfigError, match=r"^`base=early=mamba`: no run has `early=mamba`; did you mean `mamba2`\?$"):
        report(path, "early=mamba")


@pytest.mark.parametrize("records", [[example()], sweep()], ids=["one", "several"])
def test_the_page_stands_alone(folder, records):
    text = as_html(report(folder(*records)))
    page = Page(text)
    assert all(target.startswith(("#", "data:")) for target in page.loads)
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert "prefers-color-scheme: dark" in text
    assert text.count("<table>") == text.count("<caption>") > 3
    assert text.count("<svg ") == 3
    assert len(text) < 400_000


def test_the_same_records_give_the_same_page(folder):
    path = folder(*sweep())
    assert as_html(report(path)) == as_html(report(path))
    assert as_markdown(report(path)) == as_markdown(report(path))


def test_what_users_wrote_is_text_on_the_page(folder):
    evil = "<script>alert('x')</script>&amp;|`*"
    record = example(name=evil, status="failed", reason=evil, config={"note": evil})
    found = report(folder(record))
    page = as_html(found)
    assert "<script>" not in page
    assert any(evil in text for text in Page(page).seen)
    assert "\\<script>alert('x')\\</script>\\&amp;\\|\\`\\*" in as_markdown(found)


def test_markdown_tables_are_rectangular(folder):
    text = as_markdown(report(folder(*sweep())))
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) > 5
    for table in tables:
        lines = table.splitlines()
        assert re.fullmatch(r"\|( --- \|)+( --: \|)*", lines[1])
        assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_report_is_written_beside_the_records(folder, capsys):
    path = folder(example())
    assert write(report(path), path) == [path / "report.md", path / "report.html"]
    before = (path / "report.html").read_text()
    print_and_write(path)
    assert (path / "report.html").read_text() == before
    shown = capsys.readouterr().out
    assert "Quality by layer group" in shown
    assert shown.endswith(f"{path / 'report.md'}\n{path / 'report.html'}\n")


def test_a_folder_without_runs_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"no runs there"):
        print_and_write(tmp_path)
