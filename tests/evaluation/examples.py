"""Tasks made of given batches, and stacks to score on them."""

import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.quality import Quality
from hybridlab.mixers.base import Mixer
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout
from hybridlab.tasks import slices
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import Slice

DECLARED = {each.name: each for each in vars(slices).values() if isinstance(each, Slice)}


def readout_of(classes):
    """Return the readout of a decoder, or of an encoder where there are classes."""
    return Readout.EVERY_POSITION if classes is None else Readout.SEQUENCE_MEAN


class Given(Task):
    """A task that scores the batches that it is given, whatever the split; it trains on the first."""

    predicts, source, unit = "what is given", "given", "symbol"

    def __init__(self, batches, *, vocabulary, measures=("nll",), classes=None, bytes_of_token=None, readout=None):
        self.batches, self.vocabulary, self.measures, self.classes = batches, vocabulary, measures, classes
        self.bytes_of_token, self.readout = bytes_of_token, readout or readout_of(classes)
        self.slices = tuple(DECLARED.get(name, Slice(name, name)) for name in batches[0].slices)
        self.batch, self.length = batches[0].inputs.shape

    def train_batch(self, step):
        return self.batches[step % len(self.batches)]

    def evaluation_batches(self, split, *, window, stride, limit, batch):
        return iter(self.batches)


def stack_of(groups, vocabulary, *, width=32, channel=None, classes=None, causal=True, readout=None):
    """Build a stack with the weights of seed 0."""
    torch.manual_seed(0)
    plan = expand({"width": width, "groups": groups, "channel": channel}, {}, mixer_files(), causal=causal)
    return Stack(plan, vocabulary, readout=readout or readout_of(classes), classes=classes).eval()


def quality_of(**settings):
    """Say how quality is measured: by knockouts and lenses on all rows, unless told otherwise."""
    usual = {"split": "test", "window": 64, "stride": 64, "limit": None, "batch": 4, "probe_budget": None}
    return Quality(**{**usual, "probes": ["knockout", "lens"], "by": ["group", "mixer"], **settings})


class Copy(Mixer):
    """y_t = gain · x_{t-lag}: what it needs to look back over is known."""

    kind, paper, bounded_state = "convolution", "none", True

    def __init__(self, lag, gain=1.0):
        super().__init__()
        self.lag, self.gain = lag, gain

    def forward(self, x):
        return self.gain * F.pad(x, (0, 0, self.lag, 0))[:, : x.shape[1]]


def speaking_clearly(stack):
    """Give tokens embeddings at right angles, so that what a mixer copies into the stream is what the head reads."""
    torch.nn.init.zeros_(stack.embedding.weight)
    stack.embedding.weight.data.fill_diagonal_(2.0)
    return stack
