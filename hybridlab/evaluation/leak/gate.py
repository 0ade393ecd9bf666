"""The leak gate: before a run trains, and again on its trained weights."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak.changes import changes, documents_of
from hybridlab.evaluation.leak.conditions import CPU, Conditions, sequences_of
from hybridlab.evaluation.leak.copies import copied, open_paths
from hybridlab.evaluation.leak.decoding import decode, token_alone
from hybridlab.evaluation.leak.finding import Kind, Leak, LeakError, LeakFoundError
from hybridlab.evaluation.leak.generators import own_generators
from hybridlab.evaluation.leak.lengths import LEAST, probe_lengths
from hybridlab.evaluation.leak.mixers import Decoder, Probe
from hybridlab.evaluation.leak.modes import EVALUATION, TRAINING, Mode, Precision, call
from hybridlab.evaluation.leak.user_errors import in_one_line
from hybridlab.evaluation.leak.walk import Site, walk
from hybridlab.stack.layer import Layer
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan

MANY = 256  # tokens: a batch of longer sequences is changed once, of shorter ones twice
SHORT = 9  # tokens: where the mean of a sequence, or its last token, weighs most

_passed: set[tuple[Any, ...]] = set()  # by this process: the runs of a sweep share most mixers


def check_plan(plan: Plan, stack: Stack, task_length: int, **conditions: Any) -> list[str]:
    """Probe every distinct mixer of the plan, the channel mixer and the whole stack; return a line
    for each.

    A leak, or an exception in a user's module, raises ConfigError. What has passed in this process
    with the same settings under the same conditions is not probed again. `conditions` are fields of
    `Conditions`; `conditions_of` gives those of a run. The stack, and all random numbers, stay as
    they are.
    """
    return list(_lines(plan, stack, Conditions.of(task_length, **conditions), opened=True))


def check_trained(plan: Plan, stack: Stack, task_length: int, **conditions: Any) -> list[str]:
    """Probe a trained stack likewise, with the weights that it has; return a line.

    A leak raises LeakError: what training has opened must not reach a table. Outputs that are not
    finite are none: evaluation says so.
    """
    under = Conditions.of(task_length, **conditions)
    with _timed() as took:
        try:
            list(_lines(plan, stack, under, opened=False))
        except LeakFoundError as error:
            raise LeakError(f"leak: after training, {error}") from error
        except ConfigError as error:
            raise LeakError(str(error)) from error
    return [f"trained stack: no leak{took[0]}"]


def mixer_leak(
    mixer: nn.Module,
    width: int,
    lengths: Iterable[int],
    seed: int = 0,
    *,
    evaluated_length: int = 0,
    norm: nn.Module | None = None,
    opened: bool = True,
    precision: Precision | None = None,
    decoder: Decoder = decode,
    thorough: bool = True,
) -> Leak | None:
    """Probe copies of one mixer, [b, t, d] -> [b, t, d], on sequences of the longest of some
    lengths, and compare with the others; in float64 on the CPU unless `precision` says otherwise.

    If `opened`, noise on the weights opens paths that an initialisation by zeros would hide. What
    has passed so may be probed less thoroughly with other weights.
    """
    precision = precision or exact(CPU)
    *shorter, longest = sorted(lengths)

    def found(opened: bool) -> Leak | None:
        settings: dict[str, Any] = {"norm": norm, "seed": seed, "decoder": decoder, "thorough": thorough}
        probe = Probe(mixer, width, longest, precision, opened=opened, **settings)
        return next(probe.faults(shorter, evaluated_length), None)

    with own_generators(seed, precision.device):
        leak = found(opened)
        # Noise may be what makes it overflow.
        return found(False) if opened and leak is not None and leak.kind is Kind.NOT_FINITE else leak


def stack_leak(
    stack: Stack,
    lengths: Iterable[int],
    seed: int = 0,
    *,
    mode: Mode = TRAINING,
    precision: Precision | None = None,
    opened: bool = True,
    batch: int = 4,
    packed: bool = False,
    causal: bool = True,
) -> Leak | None:
    """Probe a copy of a whole stack, tokens [b, t] -> residual stream [b, t, d], on random tokens.

    The readout is left out: it uses its own position alone, or the whole sequence by design.
    """
    found = _stack_leaks(
        stack, lengths, seed, mode, precision or exact(CPU), opened=opened, batch=batch, packed=packed, causal=causal
    )
    return next((leak for _, leak in found), None)


def refuse(leak: Leak | None, what: str) -> None:
    """Raise a ConfigError if there is a leak."""
    if leak is not None:
        raise LeakFoundError(f"{what} {leak}")


def exact(device: torch.device) -> Precision:
    """Return float64 on a device."""
    return Precision("float64", torch.float64, device)


def _lines(plan: Plan, stack: Stack, conditions: Conditions, *, opened: bool) -> Iterator[str]:
    """Yield a line for each part that has passed."""
    if not plan.causal:
        yield "not needed: in this task every position sees the whole sequence"
    else:
        for layer in plan.distinct_mixers():
            yield f"{layer.mixer}: {_check_mixer(plan, stack, layer, conditions, opened=opened)}"
        if plan.channel is not None:
            yield f"channel mixer: {_check_channel(plan, stack, conditions, opened=opened)}"
    yield f"whole stack: {_check_stack(plan, stack, conditions, opened=opened)}"


def _check_mixer(plan: Plan, stack: Stack, layer: Layer, conditions: Conditions, *, opened: bool) -> str:
    block: Any = stack.layers[layer.index]
    what = f"mixer `{layer.mixer}` ({layer.where})"
    key = ("mixer", layer.fingerprint, type(block.mixer), plan.width, conditions)
    with _timed() as took:
        if not (opened and key in _passed):
            with in_one_line(what):
                precision, longest = _probed(block.mixer, plan.width, conditions, opened=opened)
                lengths = [*probe_lengths(layer.all_settings(), longest), longest]
                shared = {"norm": block.mixer_norm, "opened": opened, "precision": precision, "thorough": opened}
                leak = mixer_leak(
                    block.mixer, plan.width, lengths, evaluated_length=conditions.evaluated_length, **shared
                )
                if leak is not None and layer.parts:
                    what = _part(block.mixer, layer, plan.width, lengths, shared) or what
            _refuse(leak, what, opened)
            _remember(key, opened)
    return f"no leak, {max(conditions.length, 1):,} tokens{_beyond(conditions)}{took[0]}"


def _part(mixer: Any, layer: Layer, width: int, lengths: list[int], shared: dict[str, Any]) -> str | None:
    """Return the name of the part of a parallel mixer that leaks."""
    for name, part in zip(layer.part_names(), layer.parts, strict=True):
        if mixer_leak(mixer.parts[name], width, lengths, **shared) is not None:
            return f"mixer `{part.mixer}` in `{layer.mixer}` ({part.where})"
    return None


def _check_channel(plan: Plan, stack: Stack, conditions: Conditions, *, opened: bool) -> str:
    block: Any = stack.layers[0]
    what = "channel mixer (stack.channel)"
    key = ("channel", str(plan.channel), type(block.channel), plan.width, conditions)
    with _timed() as took:
        if not (opened and key in _passed):
            with in_one_line(what):
                precision, longest = _probed(block.channel, plan.width, conditions, opened=opened)
                leak = mixer_leak(
                    block.channel,
                    plan.width,
                    [*probe_lengths({}, longest), longest],
                    norm=block.channel_norm,
                    opened=opened,
                    precision=precision,
                    decoder=token_alone,
                    thorough=opened,
                )
            _refuse(leak, what, opened)
            _remember(key, opened)
    return f"no leak{took[0]}"


def _check_stack(plan: Plan, stack: Stack, conditions: Conditions, *, opened: bool) -> str:
    layers = tuple(layer.fingerprint for layer in plan.layers)
    types = tuple((type(layer.mixer), type(layer.channel)) for layer in stack.layers)
    key = ("stack", layers, types, str(plan.channel), plan.width, plan.causal, conditions)
    with _timed() as took:
        if not (opened and key in _passed):
            with in_one_line("the stack"):
                found = next(_of_conditions(plan, stack, conditions, opened=opened), None)
                if opened and found is not None and found[1].kind is Kind.NOT_FINITE:  # noise may be why
                    found = next(_of_conditions(plan, stack, conditions, opened=False), None)
            if found is not None:
                _refuse(found[1], _site_name(plan, found[0]), opened)
            _remember(key, opened)
    return f"no leak as it trains and is evaluated, {conditions.name}{took[0]}"


def _of_conditions(plan: Plan, stack: Stack, conditions: Conditions, *, opened: bool) -> Iterator[tuple[Site, Leak]]:
    """Yield the leaks of a stack as the run trains and evaluates it, and in float64."""
    device, name = conditions.device, conditions.name
    native = Precision(name, conditions.dtype, device, conditions)
    plain = Precision(name, conditions.dtype, device)
    length, evaluated = conditions.length, conditions.evaluated_length
    shared: dict[str, Any] = {"opened": opened, "causal": plan.causal, "batch": conditions.batch}
    few = {**shared, "batch": 2}
    short = min(SHORT, length)
    yield from _stack_leaks(stack, [short, length], 0, TRAINING, native, packed=conditions.packed, **shared)
    yield from _stack_leaks(stack, [short, length], 1, EVALUATION, native, **shared)
    if evaluated != length or conditions.mixed:
        yield from _stack_leaks(stack, [evaluated], 2, EVALUATION, plain, **few)
    if not opened:
        with suppress(Exception):  # what cannot run in float64 has run as it is trained
            yield from _stack_leaks(stack, [length], 3, EVALUATION, exact(conditions.exact_device), **few)


def _stack_leaks(
    stack: Stack,
    lengths: Iterable[int],
    seed: int,
    mode: Mode,
    precision: Precision,
    *,
    opened: bool,
    batch: int,
    causal: bool,
    packed: bool = False,
) -> Iterator[tuple[Site, Leak]]:
    device, vocabulary = precision.device, stack.embedding.num_embeddings
    with own_generators(seed, device):
        probe = copied(stack, device, precision.dtype)
        if opened:
            open_paths(probe)
        for length in lengths:
            sequences = sequences_of(length, batch)
            tokens = torch.randint(vocabulary, (sequences, length), device=device)
            for documents in (None, documents_of(sequences, length, device)) if packed else (None,):
                count = 1 if length > MANY else 2
                tried = changes(tokens, vocabulary, documents, causal=causal, count=count, first=seed)
                yield from walk(probe, tokens, documents, tried, mode, precision)


def _probed(module: Any, width: int, conditions: Conditions, *, opened: bool) -> tuple[Precision, int]:
    """Return the precision and the length in which a module is probed: float64 if it can, and, at
    the first moment, a length of some blocks if it can.
    """
    longest = conditions.length
    least = max(longest, LEAST) if opened else longest
    precisions = (
        exact(conditions.exact_device),
        Precision(conditions.name, conditions.dtype, conditions.device, conditions),
    )
    for precision in precisions:
        for length in dict.fromkeys((least, longest)):
            if _runs(module, width, length, precision):
                return precision, length
    return precisions[-1], longest  # whose exception is the one to report


def _runs(module: Any, width: int, length: int, precision: Precision) -> bool:
    x = torch.ones(1, length, width, dtype=precision.dtype, device=precision.device)
    twin = copied(module, precision.device, precision.dtype)
    try:
        call(twin, x, EVALUATION, precision)
        call(twin, x, TRAINING, precision)
    except Exception:
        return False
    return True


def _site_name(plan: Plan, site: Site) -> str:
    layer = plan.layers[site.layer]
    if site.part == "channel":
        return f"channel mixer (stack.channel) of layer {site.layer}"
    return f"mixer `{layer.mixer}` ({layer.where})" if site.part == "mixer" else f"layer {site.layer} (`{layer.mixer}`)"


def _beyond(conditions: Conditions) -> str:
    longer = conditions.evaluated_length > conditions.length
    return f" and as evaluated {conditions.evaluated_length:,}" if longer else ""


def _refuse(leak: Leak | None, what: str, opened: bool) -> None:
    if opened or (leak is not None and leak.kind is not Kind.NOT_FINITE):
        refuse(leak, what)


def _remember(key: tuple[Any, ...], opened: bool) -> None:
    if opened:
        _passed.add(key)


@contextmanager
def _timed() -> Iterator[list[str]]:
    """Yield a list whose only entry says, after the block, how long it took."""
    took, started = [""], time.perf_counter()
    yield took
    took[0] = f" ({time.perf_counter() - started:.1f} s)"
