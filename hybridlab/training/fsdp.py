"""Training in shards: each device holds its part of every weight, gradient and state of the optimiser."""

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
    """Data parallelism by PyTorch's `fully_shard` (FSDP2, 2304.11277) on any device, CPUs among them.

    Checkpoints are those of one device: a run may go on on any number of devices, in shards or not.
    """

    def setup(self, trainer: Any) -> None:
        """Shard the stack, its weights those of the checkpoint by now, and build the optimiser over the shards."""
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
        """Return the whole weights, on the CPU of the first process."""
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimiser's whole state, on the CPU of the first process."""
        return self._gathered(optimizer.state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its part of the whole states."""
        for optimiser, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            parts = {
                number: {name: _part_like(value, parameters[number]) for name, value in of_one.items()}
                for number, of_one in whole["state"].items()
            }
            optimiser.load_state_dict({**whole, "state": parts})
        self._step_together()

    def teardown(self) -> None:
        """Free what training alone needs, and leave the shards where they are: Lightning would move them to the CPU."""
        for optimiser in self.optimizers:
            optimiser.zero_grad()
            optimiser.state.clear()
        self.precision_plugin.teardown()
        self.accelerator.teardown()  # pyright: ignore[reportOptionalMemberAccess]

    def _step_together(self) -> None:
        """Let the optimiser take many shards at once: by itself PyTorch takes them one by one, which is 8 times as slow."""
        for optimiser in self.optimizers:
            for group in optimiser.param_groups:
                group["foreach"] = True

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state with its tensors whole; every process takes part, and all but the first are left with None."""

        def whole(tensor: DTensor) -> Tensor | None:
            gathered = tensor.full_tensor()
            return gathered.cpu() if self.is_global_zero else None

        return apply_to_collection(state, DTensor, whole)


def shard(module: StackModule, mesh: DeviceMesh) -> None:
    """Shard a module over the devices of `mesh`, in units that are gathered one by one: each layer, and the rest.

    A unit moves to its device as it is sharded, so no device ever holds the whole stack.
    """
    tags = {name: vars(parameter) for name, parameter in module.named_parameters()}
    for layer in module.stack.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for name, parameter in module.named_parameters():  # other objects than before
        vars(parameter).update(tags[name])
    for method in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, method)


def _part_like(value: Any, parameter: Any) -> Any:
    """Return this process's part of what belongs to a sharded parameter; what is no tensor of its shape is left whole."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
