import pytest

from hybridlab.report import build
from hybridlab.report.runs.headline import ACCURACY, BITS, NLL, headline_of
from hybridlab.report.runs.stack_runs import by_stack
from tests.report.examples import example, row, run

MIXER = "stack.groups.early.mixer"


def recall_run(mixer, seed, accuracy):
    return run({MIXER: mixer}, seed, [row("accuracy", accuracy), row("nll", 1.0)])


def test_the_task_decides():
    assert headline_of(by_stack([example()])) == BITS
    assert headline_of(by_stack([recall_run("full", 0, 0.9)])) == ACCURACY
    assert headline_of(by_stack([run({}, 0, [row("nll", 1.0)])])) == NLL
    assert (
        headline_of(by_stack([run({}, 0, [row(name, 1.0) for name in ("nll", "accuracy", "bits_per_byte")])])) == BITS
    )
    assert headline_of(by_stack([example(status="failed")])) == NLL


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


@pytest.mark.parametrize("example_accuracy", [[], [row("example_accuracy", 0.8)]])
def test_one_stack_shows_its_accuracy(example_accuracy):
    found = build.of_records([run({MIXER: "full"}, 0, [row("accuracy", 0.75), row("nll", 1.0), *example_accuracy])])
    labels = [fact.label for fact in found.headline]
    assert labels[: len(example_accuracy) + 1] == ["accuracy", "accuracy by example"][: len(example_accuracy) + 1]
    assert "bits per byte" not in labels
