"""Tasks made of given batches, stacks to evaluate on them, and the measures to take."""

from functools import cache

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from hybridlab.config import measure_files, mixer_files, register
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measures.build import build_measure, task_measures
from hybridlab.evaluation.measures.nll import NLL
from hybridlab.mixers.base import Mixer
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout
from hybridlab.tasks import slices
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import Slice

CPU = torch.device("cpu")
USUAL = {
    "split": "test",
    "window": 64,
    "stride": 64,
    "limit": None,
    "batch": 4,
    "groupings": ["group", "mixer"],
    "intervention_budget": None,
}
CHANGES = ("knockout", "mean_knockout", "interaction", "reach")  # these run a changed stack and have its tokens
OF_LAYERS = (*CHANGES, "reach_tokens", "lens", "tuned_lens")
DECLARED = {each.name: each for each in vars(slices).values() if isinstance(each, Slice)}


def readout_of(classes):
    """Return the readout of a decoder, or of an encoder where there are classes."""
    return Readout.EVERY_POSITION if classes is None else Readout.SEQUENCE_MEAN


class Given(Task):
    """A task that is evaluated on given batches, whatever the split, and trained on `training`.

    By default it is trained on the same batches.
    """

    predicts, source, unit = "what is given", "given", "symbol"

    def __init__(
        self, batches, *, vocabulary, measures=("nll",), classes=None, bytes_of_token=None, readout=None, training=None
    ):
        self.batches, self.vocabulary, self.measures, self.classes = batches, vocabulary, measures, classes
        self.bytes_of_token, self.readout = bytes_of_token, readout or readout_of(classes)
        self.slices = tuple(DECLARED.get(name, Slice(name, name)) for name in batches[0].slices)
        self.training = training or batches
        self.batch, self.length = self.training[0].inputs.shape

    def train_batch(self, step):
        return self.training[step % len(self.training)]

    def evaluation_batches(self, split, *, window, stride, limit, batch):
        return iter(self.batches)


def stack_of(groups, vocabulary, *, width=32, channel=None, classes=None, causal=True, readout=None):
    """Build a stack with the weights of seed 0."""
    torch.manual_seed(0)
    plan = expand({"width": width, "groups": groups, "channel": channel}, {}, mixer_files(), causal=causal)
    return Stack(plan, vocabulary, readout=readout or readout_of(classes), classes=classes).eval()


@cache
def _register():
    register()  # the resolver `times`


def settings_of(file, **evaluation):
    """Return the `_target_` and settings of a measure's YAML.

    Its interpolations get the values of `USUAL` and of a small task and stack.
    """
    _register()
    around = {"evaluation": {**USUAL, **evaluation}, "task": {"length": 64, "batch": 4}, "stack": {"width": 32}}
    return OmegaConf.to_container(OmegaConf.merge(around, OmegaConf.load(file)), resolve=True)[file.stem]


def evaluation_of(*names, task=None, measures=None, **settings):
    """Return an evaluation by named measures, on all sequences unless there is a budget.

    `measures` are further ones by key; those of `task` are taken too, by default the NLL.
    """
    named = {name: settings_of(measure_files()[name]) for name in names}
    of_task = {"nll": NLL()} if task is None else task_measures(task)
    return Evaluation(**{**USUAL, **settings}, measures={**named, **(measures or {})}, of_task=of_task)


def evaluate(stack, task, *names, **settings):
    """Return the measurements by name: of the task's measures, and of the named ones."""
    return by_name(complete(evaluation_of(*names, task=task, **settings).measure(stack, task, CPU)))


def complete(measured):
    """Return the measurements of an evaluation in which no measure failed."""
    assert not measured.missing
    return measured.measurements


def by_name(measurements):
    """Return measurements by their names, which are unique."""
    measurements = list(measurements)
    found = {each.name: each for each in measurements}
    assert len(found) == len(measurements), "two measurements have one name"
    return found


def named(name, **settings):
    """Build a named measure with other settings than those of its YAML."""
    return build_measure({**settings_of(measure_files()[name]), **settings}, f"measures.{name}")


def take(measures, stack, task, batches, **settings):
    """Return what some measures find on some batches, and nothing else."""
    taken = Evaluation(
        **{**USUAL, **settings}, of_task={str(number): measure for number, measure in enumerate(measures)}
    )
    return complete(taken.measure_on(batches, stack, task, CPU))


class Copy(Mixer):
    """y_t = gain · x_{t-lag}: what it needs to look back over is known."""

    kind, paper, bounded_state = "convolution", "none", True

    def __init__(self, lag, gain=1.0):
        super().__init__()
        self.lag, self.gain = lag, gain

    def forward(self, x):
        return self.gain * F.pad(x, (0, 0, self.lag, 0))[:, : x.shape[1]]


def speaking_clearly(stack):
    """Make the embeddings orthogonal: the head reads what a mixer copies into the stream."""
    torch.nn.init.zeros_(stack.embedding.weight)
    stack.embedding.weight.data.fill_diagonal_(2.0)
    return stack
