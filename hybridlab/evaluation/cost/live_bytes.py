"""How many bytes of tensors a pass holds at once: on a CPU, or on the meta device, where long rows cost nothing."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldBytes(TorchDispatchMode):
    """Adds up the storages of the `given` tensors and of every operation's results, each until nothing refers to it.

    What is kept for the gradient is among them, and what an operator of ours makes on its way. What an operation of PyTorch
    takes for itself while it runs is not seen. The meta device runs what a CPU runs, but for PyTorch's attention,
    which is there made of matrix products and holds all weights.
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.bytes = self.peak = self.largest = 0  # held now; most at once; in the largest storage
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for x in given:
            self._hold(x.untyped_storage())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "hybridlab":
            with self:
                found = function.redispatch(DispatchKeySet(DispatchKey.CPU), *args, **(kwargs or {}))
        else:
            found = function(*args, **(kwargs or {}))
        if not function.is_view:
            for x in tree_leaves(found):
                if isinstance(x, Tensor):
                    self._hold(x.untyped_storage())
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.bytes += storage.nbytes()
        self.peak, self.largest = max(self.peak, self.bytes), max(self.largest, storage.nbytes())
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, freed: int) -> None:
        self.bytes -= freed
