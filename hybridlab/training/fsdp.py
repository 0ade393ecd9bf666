"""Sharded training: each device holds its part of every weight, gradient and optimiser state."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from hybridlab.training.module import StackModule


class ShardedStrategy(DDPStrategy):
    """Data parallelism by PyTorch's `fully_shard` (FSDP2, arXiv:2304.11277), on GPUs and CPUs.

    Checkpoints are those of one device: a run may resume on any number of devices, sharded or not.
    """

    def setup(self, trainer: Any) -> None:
        """Shard the stack, which has its checkpoint's weights by now, and build the optimiser."""
        module: Any = self.lightning_module
        self.accelerator.setup(trainer)  # pyright: ignore[reportOptionalMemberAccess]
        self.precision_plugin.convert_module(module)
        if not isinstance(module, FSDPModule):
            shard(module, init_device_mesh(self.root_device.type, (self.world_size,)))
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def setup_optimizers(self, trainer: Any) -> None:
        """Build the optimiser."""
        super().setup_optimizers(trainer)
        self._step_together()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the gathered weights, on the CPU of the first process."""
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the gathered state of the optimiser, on the CPU of the first process."""
        return self._gathered(optimizer.state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this process's part of gathered optimiser states."""
        for optimiser, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            parts = {
                number: {name: _part_like(value, parameters[number]) for name, value in of_one.items()}
                for number, of_one in whole["state"].items()
            }
            optimiser.load_state_dict({**whole, "state": parts})
        self._step_together()

    def teardown(self) -> None:
        """Free the gradients and the optimiser's state.

        Leave the shards where they are, which Lightning would move to the CPU.
        """
        for optimiser in self.optimizers:
            optimiser.zero_grad()
            optimiser.state.clear()
        self.precision_plugin.teardown()
        self.accelerator.teardown()  # pyright: ignore[reportOptionalMemberAccess]

    def _step_together(self) -> None:
        """Make the optimiser update many shards at once.

        PyTorch's default updates them one by one, 8 times as slowly.
        """
        for optimiser in self.optimizers:
            for group in optimiser.param_groups:
                group["foreach"] = True

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state with its tensors gathered.

        Every process takes part, and all but the first get None for tensors.
        """

        def whole(tensor: DTensor) -> Tensor | None:
            gathered = tensor.full_tensor()
            return gathered.cpu() if self.is_global_zero else None

        return apply_to_collection(state, DTensor, whole)


def shard(module: StackModule, mesh: DeviceMesh) -> None:
    """Shard a module over the devices of `mesh`.

    Each layer is a unit that is gathered by itself, and so is the rest of the module.
    Each unit moves to its device when it is sharded, so no device ever holds the whole stack.
    """
    tags = {name: vars(parameter) for name, parameter in module.named_parameters()}
    for layer in module.stack.layers:
        for part in layer.modules():
            if getattr(part, "keeps_precision", False):
                fully_shard(part, mesh=mesh)  # a unit has parameters of one type
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for name, parameter in module.named_parameters():  # new objects, without the tags
        vars(parameter).update(tags[name])
    for method in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, method)


def _part_like(value: Any, parameter: Any) -> Any:
    """Return this process's part of a value that belongs to a sharded parameter.

    A value of another shape is not sharded.
    """
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
