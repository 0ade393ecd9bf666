"""One module alone: all positions of a sequence, in every mode, at many lengths and scales.

The reference is an output that cannot have seen ahead: `extend` token by token from an empty state.
Whatever `forward` does in one of its modes must equal it; where they differ, changing or leaving
out later inputs tells a leak from another mistake.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.evaluation.leak.changes import STILL
from hybridlab.evaluation.leak.copies import copied, open_paths
from hybridlab.evaluation.leak.decoding import DECODING, decode, writes_into_state
from hybridlab.evaluation.leak.finding import Kind, Leak
from hybridlab.evaluation.leak.generators import own_generators
from hybridlab.evaluation.leak.lengths import FEW_STEPS, TOKEN_BY_TOKEN, cuts, fill, steps
from hybridlab.evaluation.leak.modes import EVALUATION, OTHER_EVALUATION, TRAINING, Mode, Precision, call
from hybridlab.evaluation.leak.rounding import EXACT, is_rounding, moved, share_moved

Call = Callable[[Tensor], Tensor]
Decoder = Callable[[Any, Tensor, list[int], Precision], Tensor | None]

SCALED = 256  # tokens of the sequences of other scales
MOST_CUTS = 1024  # of a module without a decoding form
FEW_CUTS = 8  # of a mode that differs from the reference by design
REMEMBERED = 64  # tokens of two calls in a row
MOST_TWICE = 130  # tokens: longer sequences are compared in one of two modes in turn
SMALL_CHUNKS = (1, 2, 7, 3, 16, 5, 29)


class Probe:
    """A module [b, t, d] -> [b, t, d] under probe, in one precision.

    `norm` is what its inputs have gone through. `opened` adds noise to the weights. `decoder` gives
    outputs that have not seen ahead. If not `thorough`, it goes by chunks after the first tokens;
    inputs of other sizes, and what does not depend on weights, are left out.
    """

    def __init__(
        self,
        module: Any,
        width: int,
        length: int,
        precision: Precision,
        *,
        norm: nn.Module | None = None,
        opened: bool = True,
        seed: int = 0,
        decoder: Decoder = decode,
        thorough: bool = True,
    ) -> None:
        self.precision, self.decoder, self.thorough = precision, decoder, thorough
        self.original = copied(module, precision.device, precision.dtype)
        with own_generators(seed, precision.device), torch.no_grad():
            if opened:
                open_paths(self.original)
            noise = torch.randn(2, length, width, dtype=torch.float64)
            normed = noise / noise.square().mean(-1, keepdim=True).sqrt()
            if norm is not None:
                normed = copied(norm, torch.device("cpu"), torch.float64)(normed)
            self.x = normed.to(precision.device, precision.dtype)
            self.future = 3 * torch.randn_like(self.x[:1])  # what later inputs are changed into
        self.length = length
        self.reference = self.x[:1]  # until `forward` and `extend` have been called
        self.decodes = True
        self.training_differs = False  # by design, e.g. by dropout

    def faults(self, lengths: Sequence[int], evaluated: int) -> Iterator[Leak]:
        """Yield what is wrong, the plainest first; `lengths` are those of shorter sequences,
        `evaluated` is the longest of evaluation.
        """
        yield from self._of_first_calls()
        if self._is_random(self.x[:1], self.reference, EVALUATION):
            # Only calls of one shape draw the same numbers.
            for mode in (EVALUATION, *OTHER_EVALUATION, TRAINING):
                yield from self._in_batch(mode)
            return
        yield from self._of_reference()
        yield from self._of_modes()
        yield from self._of_chunks()
        yield from self._of_lengths(lengths)
        if self.thorough:
            yield from self._of_scales()
        if evaluated > self.length:
            yield from self._of_evaluation(evaluated)

    def _of_first_calls(self) -> Iterator[Leak]:
        """Call `forward` twice in evaluation mode: it must put out the same numbers."""
        x, again = self.x[:1], self._call(self._twin(), EVALUATION)
        self.reference = again(x)
        yield from self._not_finite(self.reference, EVALUATION)
        change = self._differs(self.reference, again(x), self._fresh(EVALUATION), x)
        if change is not None:
            yield self._leak(change, Kind.MEMORY, EVALUATION)

    def _of_reference(self) -> Iterator[Leak]:
        """Find outputs that have not seen ahead, and compare `forward` with them."""
        x, y, again = self.x[:1], self.reference, self._call(self._twin(), EVALUATION)
        sizes = steps(self.length, TOKEN_BY_TOKEN if self.thorough else FEW_STEPS)
        decoded = self.decoder(self._twin(), x, sizes, self.precision)
        if decoded is None:
            self.decodes = False
            most = MOST_CUTS if self.thorough else FEW_STEPS
            every = self.length <= most
            tried = range(self.length - 1) if every else sorted({*cuts(self.length), *self._spread(most)})
            yield from self._without_future(again, x, y, tried, EVALUATION)
            return
        self.reference = decoded
        yield from self._not_finite(decoded, DECODING)
        if (change := self._differs(decoded, y, self._fresh(EVALUATION), x)) is not None:
            yield from self._explained(again, x, y, change, EVALUATION)
            yield from self._in_batch(EVALUATION)
            yield from self._in_batch(TRAINING)
            yield self._leak(change, Kind.DECODING, DECODING)

    def _of_modes(self) -> Iterator[Leak]:
        """Compare two sequences in each mode with the reference, by a module that ran before."""
        other = self._fresh(EVALUATION)(self.x[1:])
        self.both = torch.cat([self.reference, other.to(self.reference.dtype)])
        used = self._twin()
        for mode in (*OTHER_EVALUATION, EVALUATION) if self.thorough else (EVALUATION,):
            yield from self._of_mode(used, mode)
        self.used = used
        yield from self._of_mode(self._twin(), TRAINING)
        if self.thorough:
            yield from self._of_memory()

    def _of_mode(self, module: nn.Module, mode: Mode) -> Iterator[Leak]:
        fresh = self._fresh(mode)
        change = self._differs(self.both, self._call(module, mode)(self.x), fresh, self.x)
        if change is None:
            return
        alone = torch.cat([fresh(self.x[:1]), fresh(self.x[1:])])
        of_alone = self._differs(self.both, alone, fresh, self.x)
        if of_alone is None:
            kind = Kind.MEMORY if self._differs(alone, fresh(self.x), fresh, self.x) is None else Kind.BATCH
            yield self._leak(change, kind, mode)
            return
        yield from self._explained(fresh, self.x[:1], alone[:1], of_alone[:1], mode)
        yield from self._in_batch(mode)
        self.training_differs |= mode.training

    def _of_memory(self) -> Iterator[Leak]:
        """Compare what follows two different calls in training: buffers may learn from a batch, as
        weights do, but nothing else may.
        """

        x, other = self.x[:1, :REMEMBERED], self.future[:, :REMEMBERED]

        def after(earlier: Tensor) -> Tensor:
            again = self._training()
            again(earlier)
            return again(x)

        change = self._differs(after(x), after(other), self._fresh(TRAINING), x)
        if change is not None:
            yield self._leak(change, Kind.MEMORY, TRAINING, x.shape[1])

    def _of_chunks(self) -> Iterator[Leak]:
        """Decode two sequences by chunks, with a module that has run on them as a whole."""
        if not self.decodes:
            return
        for sizes in (fill(self.length), [self.length]):
            y = self.decoder(self.used, self.x, sizes, self.precision)
            assert y is not None
            again = partial(self._decoded, sizes=sizes)
            change = self._differs(self.both, y, again, self.x)
            if change is not None:
                alone = torch.cat([again(self.x[:1]), again(self.x[1:])])
                in_batch = self._differs(self.both, alone, again, self.x) is None
                yield self._leak(change, Kind.BATCH if in_batch else Kind.CHUNKS, DECODING)
        if (
            self.thorough
            and self.decoder is decode
            and writes_into_state(self._twin(), self.x[:, : min(3, self.length)], self.precision)
        ):
            yield Leak(self.length, 0, 0, 0.0, Kind.STATE, self._named(DECODING))

    def _of_lengths(self, lengths: Sequence[int]) -> Iterator[Leak]:
        """Compare shorter sequences with the start of the reference."""
        modes = {TRAINING: self._training(), EVALUATION: self._call(self.used, EVALUATION)}
        if self.training_differs:
            del modes[TRAINING]
        for number, length in enumerate(lengths):
            both = length <= MOST_TWICE
            for mode, again in [*modes.items()] if both else [[*modes.items()][number % len(modes)]]:
                x = self.x[:1, :length]
                y = again(x)
                change = self._differs(self.reference[:, :length], y, self._fresh(mode), x)
                if change is not None:
                    yield from self._explained(again, x, y, change, mode)
                    yield self._leak(change, Kind.LENGTH, mode, self.length)

    def _of_scales(self) -> Iterator[Leak]:
        """Compare small, large, shifted and centred inputs, each sequence alone, with decoding."""
        length = min(self.length, SCALED)
        noise = (self.future / 3)[:, :length]
        centred = noise - noise.mean((1, 2), keepdim=True)
        rows = torch.cat([1e-3 * noise, 100 * noise, noise + 2, centred - centred.mean(1, keepdim=True)])
        sizes = fill(length, SMALL_CHUNKS)
        reference = self.decoder(self._twin(), rows, sizes, self.precision) if self.decodes else None
        for mode, again in ((TRAINING, self._training()), (EVALUATION, self._call(self._twin(), EVALUATION))):
            for index in range(len(rows)):
                x = rows[index : index + 1]
                y = again(x)
                if not y.isfinite().all():  # far from what a norm lets through
                    continue
                if reference is None or (mode.training and self.training_differs):
                    yield from self._without_future(again, x, y, cuts(length)[:FEW_CUTS], mode)
                elif (change := self._differs(reference[index : index + 1], y, self._fresh(mode), x)) is not None:
                    yield from self._explained(again, x, y, change, mode)
                    if not mode.training:
                        yield self._leak(change, Kind.DECODING, mode, length)

    def _of_evaluation(self, length: int) -> Iterator[Leak]:
        """Compare one sequence as long as evaluation's with the same in chunks as long as
        training's, and with its start.
        """
        with own_generators(length, self.precision.device):
            x = torch.randn(1, length, self.x.shape[-1], dtype=torch.float64)
            x = (x / x.square().mean(-1, keepdim=True).sqrt()).to(self.x)
        again = self._fresh(EVALUATION)
        y = again(x)
        sizes = fill(length, (self.length, 1, 61, 2, 2 * self.length))
        decoded = self.decoder(self._twin(), x, sizes, self.precision) if self.decodes else None
        if decoded is None:
            yield from self._without_future(again, x, y, cuts(length, seed=1)[:FEW_CUTS], EVALUATION)
        elif (change := self._differs(decoded, y, again, x)) is not None:
            yield from self._explained(again, x, y, change, EVALUATION)
            yield self._leak(change, Kind.DECODING, EVALUATION, length)

    def _explained(self, again: Call, x: Tensor, y: Tensor, change: Tensor, mode: Mode) -> Iterator[Leak]:
        """Yield a leak of the future that explains why outputs differ from the reference."""
        largest = change[0].max()
        differ = (change[0] > max(EXACT, float(largest) / 100)).nonzero()[:, 0].tolist()
        differ = [position for position in differ if position < x.shape[1] - 1]
        stride = max(1, len(differ) // FEW_CUTS)
        tried = list(dict.fromkeys([*differ[::stride], *differ[-1:], *cuts(x.shape[1])[:FEW_CUTS]]))
        for cut in tried:
            yield from self._changed_future(again, x, y, cut, mode)
        if not self._is_random(x, y, mode):
            yield from self._without_future(again, x, y, tried, mode)

    def _changed_future(self, again: Call, x: Tensor, y: Tensor, cut: int, mode: Mode) -> Iterator[Leak]:
        changed = torch.cat([x[:, : cut + 1], self._later(x.shape[1])[:, cut + 1 :]], dim=1)
        after = again(changed)
        change, fixed = moved(y, after), (torch.arange(x.shape[1], device=x.device) <= cut)[None]
        share = share_moved(y, after, fixed)
        if not is_rounding(self._fresh(mode), x, change, fixed, share):
            yield self._leak(change[:, : cut + 1], Kind.FUTURE, mode, x.shape[1], cut)

    def _without_future(self, again: Call, x: Tensor, y: Tensor, tried: Sequence[int], mode: Mode) -> Iterator[Leak]:
        """Compare the first tokens alone with the same tokens of the whole sequence."""
        for cut in tried:
            start, kept = x[:, : cut + 1], y[:, : cut + 1]
            try:
                alone = again(start)
            except Exception:  # `_of_lengths` reports a length that fails; here a leak is looked for
                yield from self._changed_future(again, x, y, cut, mode)
                continue
            change = self._differs(kept, alone, self._fresh(mode), start)
            if change is not None:
                yield from self._changed_future(again, x, y, cut, mode)
                yield self._leak(change, Kind.LENGTH, mode, x.shape[1], cut)

    def _in_batch(self, mode: Mode) -> Iterator[Leak]:
        """Change the future of some sequences of a batch, and not of the still one."""
        again, tried = self._fresh(mode), cuts(self.length)[:FEW_CUTS] or [0]
        x = self.x[:1].expand(len(tried) + 1, -1, -1)
        position = torch.arange(self.length, device=x.device)
        last = torch.tensor([*tried[:STILL], self.length - 1, *tried[STILL:]], device=x.device)
        fixed = position <= last[:, None]
        y, after = again(x), again(torch.where(fixed[..., None], x, self._later(self.length)))
        change = moved(y, after).where(fixed, 0)
        for row in (STILL, *range(STILL), *range(STILL + 1, len(x))):
            only = torch.zeros_like(fixed)
            only[row] = fixed[row]
            if not is_rounding(self._fresh(mode), x, change, only, share_moved(y, after, only)):
                kind = Kind.BATCH if row == STILL else Kind.FUTURE
                yield self._leak(change[row : row + 1], kind, mode, self.length, int(last[row]))

    def _differs(self, expected: Tensor, y: Tensor, again: Call, x: Tensor) -> Float[Tensor, "b t"] | None:
        """Return by how much outputs differ, or None if rounding explains it."""
        change = moved(expected, y)
        everywhere = torch.ones_like(change, dtype=torch.bool)
        return None if is_rounding(again, x, change, everywhere, None) else change

    def _not_finite(self, y: Tensor, mode: Mode) -> Iterator[Leak]:
        if (position := first(~y.isfinite().all(-1))) is not None:
            yield Leak(self.length, position, position, torch.inf, Kind.NOT_FINITE, self._named(mode))

    def _is_random(self, x: Tensor, y: Tensor, mode: Mode) -> bool:
        other = call(self._twin(), x, mode, self.precision, seed=2)
        return bool((moved(y, other) > EXACT).any())

    def _leak(self, change: Tensor, kind: Kind, mode: Mode, length: int | None = None, cut: int | None = None) -> Leak:
        """Return the leak of the first position that has changed about as much as any."""
        row = int(change.amax(1).argmax())
        change = change[row : row + 1]
        position = first(change > max(EXACT, float(change.max()) / 100)) or 0
        of = self.length if length is None else length
        return Leak(of, position if cut is None else cut, position, float(change[0, position]), kind, self._named(mode))

    def _named(self, mode: Mode) -> str:
        return f"{mode}, in {self.precision.name}"

    def _later(self, length: int) -> Float[Tensor, "1 t d"]:
        return self.future.repeat(1, -(-length // self.length), 1)[:, :length]

    def _spread(self, count: int) -> list[int]:
        return torch.linspace(0, self.length - 2, count).long().tolist()

    def _decoded(self, x: Tensor, sizes: list[int]) -> Tensor:
        y = self.decoder(self._twin(), x, sizes, self.precision)
        assert y is not None
        return y

    def _twin(self) -> Any:
        return copied(self.original, self.precision.device)

    def _fresh(self, mode: Mode) -> Call:
        """Return a function that calls a new copy each time."""
        return lambda x: call(self._twin(), x, mode, self.precision)

    def _training(self) -> Call:
        """Return a function that calls one copy in training mode, always from the same buffers."""
        twin = self._twin()
        buffers = buffers_of(twin)

        def again(x: Tensor) -> Tensor:
            set_buffers(twin, buffers)
            return call(twin, x, TRAINING, self.precision)

        return again

    def _call(self, module: nn.Module, mode: Mode) -> Call:
        return lambda x: call(module, x, mode, self.precision)


def first(chosen: Tensor) -> int | None:
    """Return the first chosen position of the only sequence."""
    found = chosen[0].nonzero()
    return int(found[0]) if len(found) else None


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's buffers by name."""
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers()}


def set_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Restore a module's buffers to earlier values."""
    for name, value in buffers.items():
        owner, _, own_name = name.rpartition(".")
        module.get_submodule(owner)._buffers[own_name] = value.clone()
