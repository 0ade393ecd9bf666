from pathlib import Path

import pytest

from hybridlab.errors import ConfigError
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sweeps.claims import FAILS, HOLDS, UNDECIDED, decide
from hybridlab.report.sweeps.spec import parse
from tests.report.examples import measurement, run

FILE = Path(__file__).with_name("mqar_window.yaml")
DEEP, WINDOW = "stack.groups.deep.mixer", "stack.groups.deep.settings.sliding.window"
NOISE = (0.0, 0.004, -0.003)


def runs(name, accuracy, seeds=3, **fields):
    choices = {DEEP: "full"} if name == "full" else {DEEP: "sliding", WINDOW: int(name.split()[1])}
    return [
        run(
            {**choices, "task.length": 64},
            seed,
            [measurement("accuracy", accuracy + NOISE[seed] * (1 + len(name) % 3), **fields)],
        )
        for seed in range(seeds)
    ]


def stacks(accuracies, **fields):
    return by_stack([record for name, accuracy in accuracies.items() for record in runs(name, accuracy, **fields)])


def words(accuracies, claims=None, **fields):
    sweep = parse(FILE)
    chosen = [claim for claim in sweep.claims if claims is None or claim.words in claims]
    return {decision.claim.words: decision for decision in decide(chosen, stacks(accuracies, **fields))}


PAPER = {"window 8": 0.1, "window 16": 0.2, "window 32": 0.5, "full": 0.999}


def test_claims_that_are_shown_hold_and_their_opposites_do_not():
    found = words(PAPER)
    assert {name: decision.word for name, decision in found.items()} == {
        "accuracy rises with the window": HOLDS,
        "from 16 to 32 adds a tenth or more": HOLDS,
        "full attention solves it": UNDECIDED,  # 0.999 within the noise of three seeds
        "a window of 32 is as good as full": FAILS,
        "the second doubling is worth more": HOLDS,
    }


def test_a_chain_rests_on_its_weakest_link_and_breaks_with_one():
    name = "accuracy rises with the window"
    held = words(PAPER, [name])[name]
    assert held.weakest.form.words == "window 8 − window 16"
    assert held.measured.value == pytest.approx(-0.1 + 0.001 / 3 * 2)  # of the three seeds' noise
    broken = words({**PAPER, "window 16": 0.9}, [name])[name]
    assert (broken.word, broken.weakest.form.words) == (FAILS, "window 16 − window 32")
    level = words({**PAPER, "window 16": 0.1}, [name])[name]
    assert level.word == UNDECIDED


def test_a_claim_of_several_rows_is_made_of_each(tmp_path):
    name = "from 16 to 32 adds a tenth or more"
    sweep = parsed(tmp_path, "left: window 32,", "left: {row: [window 32, full]},")
    (claim,) = [claim for claim in sweep.claims if claim.words == name]
    assert [part.form.words for part in claim.inequalities] == ["window 32 − window 16", "full − window 16"]
    assert decide([claim], stacks(PAPER))[0].word == HOLDS
    (broken,) = decide([claim], stacks({**PAPER, "full": 0.25}))
    assert (broken.word, broken.weakest.form.words) == (FAILS, "full − window 16")


def test_a_margin_moves_the_bound():
    name = "from 16 to 32 adds a tenth or more"
    assert words({**PAPER, "window 32": 0.25}, [name])[name].word == FAILS


def test_within_needs_both_sides():
    name = "a window of 32 is as good as full"
    assert words({**PAPER, "window 32": 0.98}, [name])[name].word == HOLDS
    assert words({**PAPER, "window 32": 0.95}, [name])[name].word == UNDECIDED
    assert words({**PAPER, "window 32": 1.2}, [name])[name].word == FAILS


@pytest.mark.parametrize("seeds", [0, 1])
def test_one_seed_or_none_decides_nothing(seeds):
    records = [record for name, accuracy in PAPER.items() for record in runs(name, accuracy, seeds)]
    decisions = decide(parse(FILE).claims, by_stack([*records, *runs("window 64", 0.9)]))
    assert {decision.word for decision in decisions} == {UNDECIDED}
    assert {decision.p for decision in decisions} == {1.0}


def test_many_claims_are_corrected_together():
    name = "full attention solves it"
    accuracies = {**PAPER, "full": 1.005}
    alone, among = words(accuracies, [name])[name], words(accuracies)[name]
    assert alone.p < among.p


def test_the_seeds_are_paired():
    """Accuracies vary by a tenth between seeds, their differences by a thousandth."""
    pairs = zip((0.3, 0.4, 0.5), (0.311, 0.412, 0.513), strict=True)
    records = []
    for seed, (small, large) in enumerate(pairs):
        records += [run({DEEP: "sliding", WINDOW: 8}, seed, [measurement("accuracy", small)])]
        records += [run({DEEP: "sliding", WINDOW: 16}, seed, [measurement("accuracy", large)])]
    sweep = parse(FILE)
    (inequality, *_) = sweep.claims[0].inequalities
    values = inequality.form.by_seed(by_stack(records))
    assert values == pytest.approx({0: -0.011, 1: -0.012, 2: -0.013})


def parsed(tmp_path, old, new):
    text = FILE.read_text()
    assert old in text
    (tmp_path / "demo.yaml").write_text(text.replace(old, new, 1))
    return parse(tmp_path / "demo.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("deep: full}", "deep: full, grouping: grup}", "`grouping=grup`: no such grouping; did you mean `group`?"),
        ("measure: accuracy", "reading: None.", "`table.reading`: renamed, write `table.discussion`"),
        ("  measure: accuracy\n", "", "`window 8`: `measure` is missing, here and in `table`"),
        ("right: window 16,", "right: window 61,", "no row is called `window 61`; did you mean `window 16`?"),
        ('relation: ">", right: 0.99', 'relation: ">=", right: 0.99', "no relation is called `>=`; did you mean `>`?"),
        ("margin: 0.1", "margn: 0.1", "no such key `margn`; did you mean `margin`?"),
        ("grade: A", "grade: D", "no grade is called `D`; allowed: A, B, C"),
        ("window 8: 0.081", "window 9: 0.081", "no row is called `window 9`"),
        ("left: full, relation", "left: 0.5, relation", "both sides are constants; one must be measured"),
        ("left: full, ", "", "give a `left` and a `right` side, or a `chain` of sides"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path, old, new, message):
    with pytest.raises(ConfigError) as refused:
        parsed(tmp_path, old, new)
    assert str(refused.value).startswith("sweeps/demo.yaml: ")
    assert message in str(refused.value)


def test_a_row_that_means_two_stacks_is_refused(tmp_path):
    sweep = parsed(tmp_path, "window 8: {deep: sliding, window: 8}", "window 8: {deep: sliding}")
    with pytest.raises(
        ConfigError, match=r"matches 3 stacks, select one of them: deep window = 8; deep window = 16; deep window = 32"
    ):
        decide(sweep.claims, stacks(PAPER))


def test_numbers_of_slices_and_totals_can_be_compared(tmp_path):
    text = "left: {row: full, minus: window 8, times: tokens, slice: recall, bucket: recall}, relation: '<', right: {row: full, times: 0.5}"
    sweep = parsed(tmp_path, 'left: full, relation: ">", right: 0.99', text)
    form = next(claim for claim in sweep.claims if claim.words == "full attention solves it").inequalities[0].form
    assert form.words == "tokens × (full (recall, recall) − window 8) − 0.5 × full"
    for name, accuracy in PAPER.items():
        assert runs(name, accuracy)
    whole = {name: runs(name, accuracy, seeds=1)[0] for name, accuracy in PAPER.items()}
    for name, record in whole.items():
        record.measurements.append(
            measurement("accuracy", PAPER[name] / 2, slice="recall", bucket="recall", tokens=100)
        )
    value = form.by_seed(by_stack(whole.values()))[0]
    assert value == pytest.approx(100 * (0.999 - 0.1) / 2 - 0.5 * 0.999)
    assert form.published(sweep.figure) is None
