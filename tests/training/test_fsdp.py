"""A sharded stack has the gradients, the weight decay, the checkpoints and the record of a whole
one.

Here one process does what each of several does; test_devices.py starts two.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.training.devices import check_shards
from hybridlab.training.fsdp import shard
from hybridlab.training.module import StackModule
from hybridlab.training.optimiser import AdamWCosine, parameter_groups
from tests.mixers.subject import CONF, Subject, tokens
from tests.records.reading import read_all
from tests.training.test_resume import numbers


@pytest.fixture
def alone():
    """A mesh of this process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.fixture
def first_of_four():
    """A mesh of four processes, three of which do not exist and communicate nothing."""
    torch.distributed.init_process_group("fake", store=torch.distributed.HashStore(), rank=0, world_size=4)
    yield init_device_mesh("cpu", (4,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_mixer_can_be_sharded(file, alone):
    for subject in Subject.forms(file):
        whole, parts = subject.build(torch.float32), subject.build(torch.float32)
        fully_shard(parts, mesh=alone)
        x, same = (tokens(2, subject.long, torch.float32).requires_grad_() for _ in range(2))
        expected, found = whole(x), parts(same)
        expected.square().sum().backward()
        found.square().sum().backward()
        assert torch.equal(found, expected)
        assert torch.equal(same.grad, x.grad)
        for parameter, part in zip(whole.parameters(), parts.parameters(), strict=True):
            assert isinstance(part, DTensor)
            assert torch.equal(part.grad.full_tensor(), parameter.grad)


def test_a_device_holds_its_part_of_each_layer_and_the_same_weights_decay(first_of_four):
    module = StackModule(build_stack(), AdamWCosine(lr=1e-3), 10)
    before = names_by_group(module)
    shard(module, first_of_four)
    units = {name for name, part in module.named_modules() if isinstance(part, FSDPModule)}
    assert units == {"", "stack.layers.0", "stack.layers.1"}
    assert all(isinstance(parameter, DTensor) for parameter in module.parameters())
    assert module.stack.head.weight is module.stack.embedding.weight
    held = sum(parameter.to_local().numel() for parameter in module.parameters())
    assert held == pytest.approx(sum(parameter.numel() for parameter in module.parameters()) / 4, rel=0.02)
    assert names_by_group(module) == before
    assert all(before)


@pytest.mark.parametrize(
    "parameter", [torch.tensor(1.0), torch.ones(3, dtype=torch.float64)], ids=["scalar", "float64"]
)
def test_a_parameter_that_cannot_be_sharded_is_refused(parameter):
    stack = build_stack()
    check_shards(stack)
    stack.layers[1].mixer.scale = nn.Parameter(parameter)
    with pytest.raises(ConfigError, match=r"^`trainer\.strategy=fsdp`: `layers\.1\.mixer\.scale` is \["):
        check_shards(stack)


@pytest.mark.slow
def test_a_sharded_run_and_its_checkpoint_are_those_of_any_run(hybridlab, tiny, tmp_path, monkeypatch):
    keep = SimpleNamespace(rmtree=lambda *arguments, **settings: None)
    monkeypatch.setattr("hybridlab.training.run.shutil", keep)  # the checkpoints of a finished run stay
    command = ["train", *tiny, "logger=none", "checkpoint.every_n_train_steps=4"]
    assert hybridlab(*command, "runs=whole").code == 0
    assert hybridlab(*command, "runs=parts", "trainer.strategy=fsdp").code == 0
    assert not torch.distributed.is_initialized()
    ((whole,), (parts,)) = read_all(tmp_path / "whole"), read_all(tmp_path / "parts")
    assert numbers(parts) == pytest.approx(numbers(whole), rel=1e-5)
    (record,) = tmp_path.glob("parts/*/*/record.json")
    record.unlink()
    assert "goes on from epoch=0-step=8.ckpt" in hybridlab(*command, "runs=parts").out
    assert numbers(*read_all(tmp_path / "parts")) == pytest.approx(numbers(whole), rel=1e-5)


def test_rates_of_their_own_survive_sharding(alone):
    module = StackModule(build_stack(["s4d", "lru"]), AdamWCosine(lr=1e-2), 10)
    before = names_by_group(module, 1e-2)
    shard(module, alone)
    assert names_by_group(module, 1e-2) == before
    assert [group.get("lr") for group in parameter_groups(module, 0.1, 1e-2)] == [None, None, 1e-3, 5e-3]


def test_a_part_that_keeps_its_precision_is_sharded_on_its_own(alone):
    module = StackModule(build_stack(["hyena"]).to(torch.bfloat16), AdamWCosine(lr=1e-3), 10)
    shard(module, alone)
    layer = module.stack.layers[0]
    layer(torch.randn(2, 6, 32, dtype=torch.bfloat16)).float().square().mean().backward()
    gradients = {name: parameter.grad.dtype for name, parameter in layer.named_parameters()}
    for name, dtype in gradients.items():
        assert dtype == (torch.float32 if ".filter." in name else torch.bfloat16), name


def build_stack(mixers=("full", "mamba2")):
    groups = {"all": {"layers": 2, "mixer": list(mixers)}}
    return Stack(expand({"width": 32, "groups": groups}, {}, mixer_files()), 13)


def names_by_group(module, lr=math.inf):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in parameter_groups(module, 0.1, lr)]
