"""What a run on several devices requires of the strategy, the batch and the stack."""

from typing import Any

from hybridlab.errors import ConfigError, under
from hybridlab.stack.model import Stack
from hybridlab.validate import choice

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp")


def strategy_for(name: Any) -> Any:
    """Return what Lightning's Trainer takes for `trainer.strategy`.

    Refuse strategies that fork or fail during training.
    """
    with under("trainer"):
        choice(STRATEGIES, strategy=name)
    if name != "fsdp":
        return name
    from hybridlab.training.fsdp import ShardedStrategy  # slow to import

    return ShardedStrategy()


def check_machine(trainer: Any, precision: str) -> None:
    """Refuse devices that a run cannot be measured on or that lack its precision, and nodes that
    nobody starts.
    """
    if trainer.precision != precision:  # Lightning falls back on another one, with a warning
        raise ConfigError(
            f"`trainer.precision={precision}`: not on {trainer.strategy.root_device.type}; write `{trainer.precision}`"
        )
    if trainer.strategy.root_device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"`trainer.accelerator`: {trainer.strategy.root_device.type} has no float64, which evaluation sums in; "
            "write `trainer.accelerator=cpu`"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and not getattr(environment, "creates_processes_externally", False):
        raise ConfigError(
            f"`trainer.num_nodes={trainer.num_nodes}`: start the command on every node by `srun` or `torchrun`"
        )


def check_batch(batch: int, trainer: Any) -> None:
    """Require that the devices can share the sequences of a batch equally."""
    if batch % trainer.world_size:
        raise ConfigError(f"`task.batch={batch}`: must be a multiple of the number of devices, {trainer.world_size}")


def check_shards(stack: Stack) -> None:
    """Require parameters that FSDP can shard: each has a dimension, and all have one dtype."""
    dtype = stack.head.weight.dtype
    for name, parameter in stack.named_parameters():
        if parameter.ndim == 0 or parameter.dtype != dtype:
            raise ConfigError(
                f"`trainer.strategy=fsdp`: `{name}` is {list(parameter.shape)}, {parameter.dtype}; "
                f"must have at least one dimension and be {dtype}"
            )
