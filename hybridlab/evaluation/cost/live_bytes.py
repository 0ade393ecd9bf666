"""How many bytes of tensors are alive at once during a pass, on a CPU or on the meta device."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of the `given` tensors and of every operation's results, each until it
    is freed.

    This includes what is saved for the gradient, and the intermediate results of our own operators,
    but not the scratch memory of PyTorch's operations. The meta device runs what a CPU runs, except
    PyTorch's attention, which falls to matrix products there and materialises all weights.
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.bytes = self.peak = self.largest = 0  # alive now; most at once; of the largest storage
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
