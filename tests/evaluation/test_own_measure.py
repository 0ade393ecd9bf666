"""A user's own measure, task and slice, from a folder of theirs: they work whole, and mistakes in
them are refused before anything is trained.
"""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hybridlab.build import build
from hybridlab.config import measure_files
from hybridlab.errors import ConfigError
from tests.conftest import CONF
from tests.evaluation.examples import USUAL
from tests.evaluation.measures.conftest import subjects
from tests.records.reading import read_all

MEASURE = """
from dataclasses import dataclass, replace

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.readings import Reading
from hybridlab.evaluation.passes.requests import Request, Term, layer_groups
from hybridlab.stack.readout import Readout


@dataclass(frozen=True)
class StreamNormAfter(Reading):
    layer: int

    def __call__(self, outputs):
        return outputs.at_targets(outputs.stream(self.layer)).norm(dim=-1).double().cpu().numpy()


class StreamNorm(TargetMeasure):
    name = "stream_norm"
    unit = "1"
    definition = "mean norm of the residual stream after the layer group, at the scored positions"
    better = "lower"

    def applies_to(self, task):
        return task.readout == Readout.EVERY_POSITION

    def requests(self, plan, groupings, length):
        for group in layer_groups(plan, ["group"]):
            reading = StreamNormAfter(group.layers[-1])
            yield Request((Term(1, reading=reading),), group.grouping, group.group)
"""
YAML = "stream_norm:\n  _target_: my_measure.StreamNorm\n"

# What is wrong with the class Mine, and the message after `evaluation.measures.norm`.
UNDECLARED = {
    "no name": ("class Mine(StreamNorm):\n    name = ''", "`: Mine must have a `name`, as text"),
    "a name in capitals": ("class Mine(StreamNorm):\n    name = 'Norm'", "`: Mine.name=Norm: must be of lower case"),
    "no unit": ("class Mine(StreamNorm):\n    unit = ''", "`: Mine must have a `unit`, as text"),
    "no definition": ("class Mine(StreamNorm):\n    definition = None", "`: Mine must have a `definition`, as text"),
    "no such direction": (
        "class Mine(StreamNorm):\n    better = 'up'",
        "`: Mine.better=up: must be lower, higher or empty",
    ),
    "slices as text": (
        "class Mine(StreamNorm):\n    slices = ('colour',)",
        "`: Mine.slices must be of hybridlab.tasks.slices.Slice",
    ),
    "no kind": (
        "from hybridlab.evaluation.measures.base import Measure\n\n\nclass Mine(Measure):\n"
        "    name, unit, definition = 'norm', '1', 'norm'",
        "`: Mine must be a kind of measure, e.g. a TargetMeasure",
    ),
}
MISTAKES = {
    "no unit": UNDECLARED["no unit"],
    "no measure": (
        "class Mine:\n    name = unit = definition = 'norm'",
        "`: Mine must be a hybridlab.evaluation.measures.base.Measure",
    ),
    "the name of another": (
        "class Mine(StreamNorm):\n    name = 'lens'",
        "`: `lens` is measured by measures.lens already",
    ),
    "the name of a cost": (
        "class Mine(StreamNorm):\n    name = 'flops'",
        "`: Mine.name=flops: every run measures this, as FLOPs",
    ),
    "a wrong shape": (
        """
class Whole(StreamNormAfter):
    def __call__(self, outputs):
        return outputs.stream(self.layer).norm(dim=-1).double().cpu().numpy()


class Mine(StreamNorm):
    def requests(self, plan, groupings, length):
        yield Request((Term(1, reading=Whole(0)),))
""",
        "`: Mine fails on an untrained stack (ValueError: Whole returns shape (2, 32); must return a NumPy array of shape",
    ),
    "a tensor": (
        """
class Tensor(StreamNormAfter):
    def __call__(self, outputs):
        return outputs.at_targets(outputs.stream(self.layer)).norm(dim=-1)


class Mine(StreamNorm):
    def requests(self, plan, groupings, length):
        yield Request((Term(1, reading=Tensor(0)),))
""",
        "`: Mine fails on an untrained stack (ValueError: Tensor returns Tensor; must return a NumPy array",
    ),
    "a KeyError": (
        "class Mine(StreamNorm):\n    def requests(self, plan, groupings, length):\n        return {}['colour']",
        "`: Mine fails on an untrained stack (KeyError: 'colour' (",
    ),
    "NaN": (
        """
class Nothing(StreamNormAfter):
    def __call__(self, outputs):
        return super().__call__(outputs) * float("nan")


class Mine(StreamNorm):
    def requests(self, plan, groupings, length):
        yield Request((Term(1, reading=Nothing(0)),))
""",
        "`: Mine yields nan for `test/stream_norm`; must yield finite numbers",
    ),
    "a slice that is not declared": (
        """
class Mine(StreamNorm):
    def summarise(self, requests, sums, split):
        for found in super().summarise(requests, sums, split):
            yield replace(found, slice="colour", bucket="red")
""",
        "`: Mine yields the slice `colour`, which neither its `slices` nor the task declares",
    ),
    "another name in its measurements": (
        """
class Mine(StreamNorm):
    def summarise(self, requests, sums, split):
        for found in super().summarise(requests, sums, split):
            yield replace(found, measure="norm")
""",
        "`: Mine yields `norm` in 1; must yield `stream_norm` in 1",
    ),
    "one name for two measurements": (
        """
class Mine(StreamNorm):
    def summarise(self, requests, sums, split):
        yield from 2 * list(super().summarise(requests, sums, split))
""",
        "`: Mine yields two measurements with the name `test/stream_norm/group/early`",
    ),
}
SETTING = "@dataclass(frozen=True, kw_only=True)\nclass Mine(StreamNorm):\n    power: float = 1.0"
TASK = """
import torch

from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.slices import DOCUMENT, POSITION, Slice

ONES = Slice("ones", "whether the token before the target is a 1", labels=("after another", "after a 1"))


class Echo(Task):
    predicts = "each token, from itself and those before"
    measures = ("accuracy", "nll")
    source, unit, vocabulary = "mine", "symbol", 7
    slices = (DOCUMENT, POSITION, ONES)

    def __init__(self, *, seed, length, batch):
        self.seed, self.length, self.batch = seed, length, batch

    def ones(self, inputs):
        return (inputs.roll(1, 1) == 1).long()

    def examples(self, seed, first, count):
        inputs = torch.randint(7, (count, self.length), generator=torch.Generator().manual_seed(seed))
        document = torch.arange(first, first + count)[:, None].expand_as(inputs)
        position = torch.arange(self.length).expand_as(inputs)
        return Batch(inputs, inputs, {"document": document, "position": position, "ones": self.ones(inputs)})

    def train_batch(self, step):
        return self.examples(1 + self.seed + step, 0, self.batch)

    def evaluation_batches(self, split, *, window, stride, limit, batch):
        yield self.examples(0, 0, batch)
        yield self.examples(9, batch, batch)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module that can be imported until the end of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def put(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)

    yield put
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def mine(tmp_path):
    """A folder of the user's own configuration, with the stack and trainer that tests use."""
    shutil.copytree(CONF, tmp_path / "mine")
    folder = tmp_path / "mine" / "evaluation" / "measures"
    folder.mkdir(parents=True)
    (folder / "stream_norm.yaml").write_text(YAML)
    (tmp_path / "mine" / "task").mkdir()
    (tmp_path / "mine" / "task" / "echo.yaml").write_text("_target_: my_task.Echo\nlength: 32\nbatch: 2\n")
    return tmp_path / "mine"


@pytest.fixture
def train(hybridlab, tiny, mine):
    """Train a run of about a second with the user's folder."""
    words = [str(mine) if word == str(CONF) else word for word in tiny]
    return lambda *overrides: hybridlab("train", *words, "logger=none", *overrides)


@pytest.fixture
def refused(train, tmp_path):
    """Expect that a run is refused in a line, and leaves nothing behind."""

    def check(message, *overrides):
        outcome = train(*overrides)
        assert outcome.err.startswith(f"hybridlab: {message}")
        assert outcome.err.count("\n") == 1
        assert outcome.code == 2
        assert not (tmp_path / "runs").exists()

    return check


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param("evaluation/measures=[knockout,lens,stream_norm]", marks=pytest.mark.slow),
        "+evaluation.measures.norm={_target_: my_measure.StreamNorm}",
    ],
    ids=["by name", "by class"],
)
def test_a_measure_is_taken_recorded_and_reported(train, write, tmp_path, chosen):
    write("my_measure", MEASURE)
    outcome = train(chosen)
    assert outcome.code == 0, outcome.err
    (record,) = read_all(tmp_path / "runs")
    found = [each for each in record.measurements if each.measure == "stream_norm"]
    assert [each.group for each in found if not each.slice] == ["early", "middle", "deep"]
    assert {each.slice for each in found} >= {"", "position"}
    assert {each.unit for each in found} == {"1"}
    described = record.measures["stream_norm"]
    assert described.definition.startswith("mean norm of the residual stream after the layer group")
    assert (described.unit, described.better) == ("1", "lower")
    assert {"knockout", "lens"} <= {each.measure for each in record.measurements}
    (report,) = (tmp_path / "runs").rglob("report.md")
    for text in (outcome.out, report.read_text()):
        assert "Stream norm" in text
        assert "mean norm of the residual stream" in " ".join(text.split())


def test_the_shared_suite_finds_the_measures_of_a_folder(mine, tmp_path):
    names = {}
    for folder in (None, mine, mine / "evaluation" / "measures"):
        config: Any = SimpleNamespace(getoption={"--measures": folder}.get)
        names[folder] = [subject.name for subject in subjects(config)]
    assert names[None] == sorted(measure_files())
    assert names[mine] == names[mine / "evaluation" / "measures"] == [*names[None], "stream_norm"]
    nothing: Any = SimpleNamespace(getoption={"--measures": tmp_path / "mine" / "task" / "none"}.get)
    with pytest.raises(pytest.UsageError, match="no YAML in it"):
        subjects(nothing)


@pytest.mark.slow
def test_the_shared_suite_tests_a_measure_of_a_folder(write, mine, tmp_path):
    write("my_measure", MEASURE)
    tests = CONF.parent / "evaluation" / "measures" / "test_measure_contract.py"
    options = ["-n", "0", "-p", "no:cacheprovider", "-rp", "--measures", str(mine), "-k", "stream_norm"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)],
        cwd=CONF.parents[1],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("\nPASSED") > 20


@pytest.mark.parametrize("case", UNDECLARED)
def test_a_class_that_does_not_say_what_it_measures_is_refused(write, case):
    source, message = UNDECLARED[case]
    write("my_measure", f"{MEASURE}\n\n{source}\n")
    evaluation = {"_target_": "hybridlab.evaluation.evaluation.Evaluation", **USUAL}
    with pytest.raises(ConfigError, match=f"^{re.escape(f'`evaluation.measures.norm{message}')}"):
        build({**evaluation, "measures": {"norm": {"_target_": "my_measure.Mine"}}}, "evaluation")


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_measure_is_refused(refused, write, case):
    source, message = MISTAKES[case]
    write("my_measure", f"{MEASURE}\n\n{source}\n")
    refused(f"`evaluation.measures.norm{message}", "+evaluation.measures.norm={_target_: my_measure.Mine}")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{_target_: my_measure.Mine, powr: 2.0}", ".powr=2.0`: Mine has no such setting; did you mean `power`?"),
        ("{_target_: my_measure.Mine, power: two}", ".power=two`: must be a number"),
        ("{power: 2.0}", "`: no `_target_`: it names the class to build"),
        ("{_target_: my_measure.Yours}", "._target_=my_measure.Yours`: cannot be imported ("),
        ("7", "=7`: must be a `_target_` and its settings"),
    ],
)
def test_a_mistake_in_a_node_is_refused(refused, write, node, message):
    write("my_measure", f"{MEASURE}\n\n{SETTING}\n")
    refused(f"`evaluation.measures.norm{message}", f"+evaluation.measures.norm={node}")


def test_a_yaml_without_the_name_is_refused(refused, write, mine):
    write("my_measure", MEASURE)
    (mine / "evaluation" / "measures" / "stream_norm.yaml").write_text("_target_: my_measure.StreamNorm\n")
    message = "`evaluation.measures._target_=my_measure.StreamNorm`: must be below the name of the measure"
    refused(message, "evaluation/measures=[stream_norm]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation/measures=[knokout]", "`evaluation/measures=knokout`: no such measure; did you mean `knockout`?"),
        (
            "evaluation/measures=[stream_nrom]",
            "`evaluation/measures=stream_nrom`: no such measure; did you mean `stream_norm`?",
        ),
        ("evaluation.measures=[knockout]", "`evaluation.measures=[knockout]`: "),
        ("evaluation.slices=[positions]", "`evaluation.slices=['positions']`: did you mean `position`?"),
        ("evaluation.slices=[pair]", "`evaluation.slices=['pair']`: allowed: document, length, position"),
        (
            "evaluation.probes=[knockout,reach]",
            "`evaluation.probes=['knockout', 'reach']`: renamed, write `evaluation/measures=[knockout,reach]`",
        ),
        ("evaluation.by=[group]", "`evaluation.by=['group']`: renamed, write `evaluation.groupings=['group']`"),
        (
            "evaluation.probe_budget=1",
            "`evaluation.probe_budget=1`: renamed, write `evaluation.intervention_budget=1`",
        ),
        (
            "+evaluation.also.norm={_target_: my_measure.StreamNorm}",
            "`evaluation.also={'norm': {'_target_': 'my_measure.StreamNorm'}}`: renamed, "
            "write `+evaluation.measures.norm=...`",
        ),
        (
            "+evaluation.measures.memory={_target_: hybridlab.evaluation.memory.Memory}",
            "`evaluation.measures.memory._target_=hybridlab.evaluation.memory.Memory`: divided, "
            "write `evaluation/measures=[memory_tokens,influence]`",
        ),
    ],
)
def test_an_unknown_name_and_an_old_key_are_refused(refused, override, message):
    refused(message, override)


def test_a_slice_of_a_task_is_measured_recorded_and_reported(train, write, tmp_path):
    write("my_task", TASK)
    outcome = train("task=echo", "~task.path")
    assert outcome.code == 0, outcome.err
    (record,) = read_all(tmp_path / "runs")
    described = record.slices["ones"]
    assert described.definition == "whether the token before the target is a 1"
    assert described.buckets == ("after another", "after a 1")
    measured = {each.measure for each in record.measurements if each.slice == "ones"}
    assert measured == {"accuracy", "nll", "knockout", "lens"}
    (report,) = (tmp_path / "runs").rglob("report.md")
    assert all(text in report.read_text() for text in ("whether the token before the target is a 1", "after a 1"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(DOCUMENT, POSITION, ONES)", "(DOCUMENT, POSITION)", "in a batch's `slices`, but not declared"),
        ("(inputs.roll(1, 1) == 1).long()", "(inputs[0] == 1).long()", "of shape [32] in a batch whose targets have"),
        (
            "(inputs.roll(1, 1) == 1).long()",
            "inputs.roll(1, 1) == 1",
            "of torch.bool in a batch; must be of torch.int64",
        ),
    ],
    ids=["undeclared", "wrong shape", "wrong type"],
)
def test_a_mistake_in_a_slice_of_a_task_is_refused(refused, write, old, new, message):
    assert old in TASK
    write("my_task", TASK.replace(old, new))
    refused(f"Echo: the slice `ones` is {message}", "task=echo", "~task.path")
