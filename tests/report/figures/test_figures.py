import re
import subprocess
import sys
from dataclasses import replace

import pytest

from hybridlab.report.content import PlottedRow
from hybridlab.report.figures.select import figures, of_stacks, of_table
from hybridlab.report.figures.style import COLOURS, GRID, INK, inline_svg
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.runs.statistics import Estimate
from tests.report.examples import BUCKETS, example, fully_evaluated


def test_a_run_has_three_figures_with_units():
    drawn = figures(example())
    labels = {name: (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) for name, figure in drawn.items()}
    assert labels == {
        "knockout": ("", "added NLL (nats/token)"),
        "nll_by_position": ("position in the document (tokens)", "NLL (nats/token)"),
        "learning_curve": ("tokens trained on", "NLL (nats/token)"),
    }


def test_lines_are_the_measured_numbers():
    record = example()
    by_name = {row.name: row for row in record.measurements if row.step is None}
    lines = {line.get_label(): line for line in figures(record)["nll_by_position"].axes[0].lines}
    intact = [by_name[f"test/nll/position/{bucket}"].value for bucket in BUCKETS]
    added = [by_name[f"test/knockout/group/deep/mixer/position/{bucket}"].value for bucket in BUCKETS]
    assert list(lines["intact"].get_ydata()) == intact
    assert list(lines["deep ablated"].get_ydata()) == pytest.approx([a + b for a, b in zip(intact, added, strict=True)])
    assert set(lines) == {"intact", "early ablated", "middle ablated", "deep ablated"}


def of_reach(record, **fields):
    """Return the record with reach of the group `early` alone, as that of something else."""
    others = [row for row in record.measurements if row.measure != "reach"]
    early = [row for row in record.measurements if row.measure == "reach" and row.group == "early" and not row.slice]
    return replace(record, measurements=[*others, *(replace(row, **fields) for row in early)])


def test_reach_is_drawn_by_kind_of_mixer_where_no_declared_group_was_asked():
    record = of_reach(fully_evaluated(example()), grouping="mixer", group="full")
    full, _zero = figures(record)["reach"].axes[0].lines
    measured = [row.value for row in record.measurements if row.measure == "reach"]
    assert (full.get_label(), list(full.get_ydata())) == ("full", measured)


def test_no_reach_is_drawn_of_single_layers_alone():
    assert "reach" not in figures(of_reach(fully_evaluated(example()), grouping="layer", group="0"))


def test_bars_are_the_measured_knockouts():
    record = example()
    rows = [row for row in record.measurements if row.measure == "knockout" and row.part == "mixer" and not row.slice]
    bars = figures(record)["knockout"].axes[0].containers[0]
    assert [bar.get_height() for bar in bars] == [row.value for row in rows]


def test_a_full_evaluation_has_a_figure_for_each_measure():
    record = fully_evaluated(example())
    by_name = {row.name: row.value for row in record.measurements if row.step is None}
    drawn = figures(record)
    assert list(drawn) == [
        "knockout", "nll_by_position", "nll_by_distance", "reach", "influence", "redundancy", "learning_curve",
    ]  # fmt: skip
    reach = {line.get_label(): list(line.get_ydata()) for line in drawn["reach"].axes[0].lines}
    for group in ("early", "middle", "deep"):
        assert reach[group] == [
            by_name[f"test/reach/group/{group}/mixer/block {block}"] for block in (16, 32, 64, 128, 256)
        ]
    influence = {line.get_label(): list(line.get_ydata()) for line in drawn["influence"].axes[0].lines}
    assert influence["deep"][3] == by_name["test/influence/group/deep/lag/8-15"]
    bars, matrix = drawn["redundancy"].axes
    heights = [bar.get_height() for container in bars.containers for bar in getattr(container, "patches", [])]
    assert heights == [by_name[f"test/block_influence/layer/{layer}"] for layer in range(7)]
    assert [text.get_text() for text in matrix.texts] == [
        "1.00",
        "0.65",
        "0.40",
        "0.65",
        "1.00",
        "0.65",
        "0.40",
        "0.65",
        "1.00",
    ]


def test_what_was_not_measured_is_not_drawn():
    kept = [row for row in example().measurements if row.measure == "nll" and row.step is None]
    assert list(figures(example(measurements=kept))) == ["nll_by_position"]
    assert figures(example(status="failed")) == {}
    assert of_stacks(by_stack([example(status="failed")]), by_stack([example()])[0]) == {}


def test_stacks_are_compared_with_the_base():
    base, other = by_stack([example(), example(early="full")])
    drawn = of_stacks([base, other], base)
    assert list(drawn) == ["stacks", "nll_by_position", "learning_curve"]
    lines = {line.get_label(): line for line in drawn["nll_by_position"].axes[0].lines}
    assert list(lines["early = gated_conv (base)"].get_ydata()) == [0.0] * len(BUCKETS)
    assert max(lines["early = full"].get_ydata()) < 0


def test_one_svg_serves_light_and_dark_paper():
    svg = inline_svg(figures(example())["knockout"], "knockout")
    assert svg == inline_svg(figures(example())["knockout"], "knockout")
    assert not any(colour in svg for colour in (*COLOURS, INK, GRID))
    assert {"var(--c0)", "var(--c1)", "var(--rule)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "<text" in svg
    assert "early" in svg
    assert "<svg" in svg[:5]
    assert "<metadata" not in svg


def test_identifiers_differ_between_the_figures_of_a_page():
    drawn = figures(example())
    seen = [set(re.findall(r'id="(m[0-9a-f]{6,}|p[0-9a-f]{6,})"', inline_svg(drawn[name], name))) for name in drawn]
    assert all(seen)
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_pyplot_and_its_global_state_stay_out():
    look = (
        "import sys; from tests.report.examples import example; from hybridlab.report.figures.select import figures\n"
        "figures(example()); print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "False\n"


def test_panels_of_a_table_stand_two_and_two_and_none_is_empty():
    measured = Estimate(0.5)
    figure = of_table({name: [PlottedRow("full", None, measured)] for name in ("a", "b", "c")})
    assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b", "c"]
