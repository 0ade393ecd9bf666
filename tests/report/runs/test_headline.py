import pytest

from hybridlab.records.description import MeasureDescription
from hybridlab.report import build
from hybridlab.report.runs.headline import headline_of, quality
from hybridlab.report.runs.stack_runs import by_stack
from tests.report.descriptions import MEASURES
from tests.report.examples import example, measurement, run

MIXER = "stack.groups.early.mixer"


def recall_run(mixer, seed, accuracy):
    return run({MIXER: mixer}, seed, [measurement("accuracy", accuracy), measurement("nll", 1.0)])


def stacks_with(*names):
    """Return a stack per list of measures; the first measure is its headline."""
    records = []
    for number, measures in enumerate(names):
        record = run({MIXER: str(number)}, 0, [measurement(name, 1.0) for name in measures])
        record.headline = measures[0]
        records.append(record)
    return by_stack(records)


def test_the_records_decide():
    bits, accuracy = headline_of(by_stack([example()])), headline_of(by_stack([recall_run("full", 0, 0.9)]))
    assert bits == ("bits_per_byte", "nll", "nats/token", "lowest bits per byte", False)
    assert accuracy == ("accuracy", "accuracy", "accuracy", "highest accuracy", True)
    assert headline_of(by_stack([run({}, 0, [measurement("nll", 1.0)])])).best == "lowest NLL"
    assert headline_of(by_stack([example(status="failed")])).ranked == "nll"


@pytest.mark.parametrize(
    ("stacks", "ranked"),
    [
        ([["bits_per_byte", "nll", "accuracy"], ["bits_per_byte", "nll"]], "bits_per_byte"),
        ([["bits_per_byte", "nll"], ["accuracy", "nll"]], "accuracy"),
        ([["nll"], ["accuracy", "nll"]], "accuracy"),
        ([["bits_per_byte", "nll"], ["nll"]], "nll"),
        ([["nll"], ["bits_per_byte", "nll"]], "nll"),
        ([["bits_per_byte"], ["perplexity"]], "nll"),
    ],
)
def test_stacks_of_different_tasks_share_a_headline(stacks, ranked):
    assert headline_of(stacks_with(*stacks)).ranked == ranked


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (["bits_per_byte", "nll", "perplexity"], ["bits_per_byte", "nll"]),
        (["accuracy", "nll", "example_accuracy"], ["accuracy", "example_accuracy", "nll"]),
        (["nll", "bits_per_byte", "streamed_nll", "accuracy"], ["nll", "streamed_nll", "accuracy"]),
    ],
)
def test_the_columns_of_quality_start_with_the_headline(measured, shown):
    stacks = stacks_with(measured)
    assert quality(headline_of(stacks), stacks) == shown


def test_a_headline_of_a_users_own_ranks_and_compares():
    measures = {**MEASURES, "f1": MeasureDescription("1", "balanced F1", better="higher", title="F1 (macro)")}
    records = []
    for mixer, score in (("full", 0.5), ("linear", 0.9)):
        for seed in (0, 1):
            found = [measurement("nll", 1.0), measurement("f1", score + seed / 1000, measures=measures)]
            records.append(run({MIXER: mixer}, seed, found, measures=measures))
            records[-1].headline = "f1"
    found = build.of_records(records)
    (table,), (swaps,) = (section.tables for section in found.sections[:2])
    assert [line[0] for line in table.bodies[0]] == ["linear", "full (base)"]
    assert table.numbers[:2] == ("F1 (macro)", "NLL\n(nats/token)")
    assert "highest F1 first" in table.caption
    assert swaps.numbers[0] == "Difference\n(F1)"
    assert swaps.bodies[0][0][3] == "better"


def test_the_most_accurate_stack_comes_first():
    accuracies = {"linear": 0.4, "full": 0.99, "mamba2": 0.7}
    records = [recall_run(mixer, seed, a + seed / 1000) for mixer, a in accuracies.items() for seed in (0, 1)]
    records.append(run({MIXER: "sliding"}, 0, [], status="diverged"))
    found = build.of_records(records, base="early=full")
    table = found.sections[0].tables[0]
    assert [line[0] for line in table.bodies[0]] == ["full (base)", "mamba2", "linear", "sliding"]
    assert table.numbers[:2] == ("Accuracy", "NLL\n(nats/token)")
    assert "highest accuracy first" in table.caption
    swaps = found.sections[1].tables[0]
    assert "Accuracy after minus before" in swaps.caption
    assert "m = 2 comparisons" in swaps.note
    assert [line[3] for line in swaps.bodies[0]] == ["worse", "worse", "–"]


@pytest.mark.parametrize("example_accuracy", [[], [measurement("example_accuracy", 0.8)]])
def test_one_stack_shows_its_accuracy(example_accuracy):
    found = build.of_records(
        [run({MIXER: "full"}, 0, [measurement("accuracy", 0.75), measurement("nll", 1.0), *example_accuracy])]
    )
    labels = [fact.label for fact in found.headline]
    assert labels[: len(example_accuracy) + 1] == ["accuracy", "accuracy by example"][: len(example_accuracy) + 1]
    assert "bits per byte" not in labels
