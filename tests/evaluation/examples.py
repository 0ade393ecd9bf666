"""Tasks made of given batches, and stacks to score on them."""

import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.quality import Quality
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.base import Task


class Given(Task):
    """A task that scores the batches that it is given, whatever the split; it trains on the first."""

    supervised, source, unit = "what is given", "given", "symbol"

    def __init__(self, batches, *, vocabulary, measures=("nll",), classes=None, bytes_of_token=None):
        self.batches, self.vocabulary, self.measures, self.classes = batches, vocabulary, measures, classes
        self.bytes_of_token = bytes_of_token
        self.slices = tuple(batches[0].slices)
        self.batch, self.length = batches[0].inputs.shape

    def train_batch(self, step):
        return self.batches[step % len(self.batches)]

    def evaluation_batches(self, split, *, window, stride, limit, batch):
        return iter(self.batches)


def stack_of(groups, vocabulary, *, width=32, channel=None, classes=None, causal=True):
    """Build a stack with the weights of seed 0."""
    torch.manual_seed(0)
    plan = expand({"width": width, "groups": groups, "channel": channel}, {}, mixer_files(), causal=causal)
    return Stack(plan, vocabulary, classes).eval()


def quality_of(**settings):
    """Say how quality is measured: by knockouts and lenses on all rows, unless told otherwise."""
    usual = {"split": "test", "window": 64, "stride": 64, "limit": None, "batch": 4, "probe_budget": None}
    return Quality(**{**usual, "probes": ["knockout", "lens"], "by": ["group", "mixer"], **settings})
