"""Bits per byte beside those of n-gram models."""

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.format import significant, with_interval
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import section_of

ORDER = 30
MODELS, CONTEXT = "ngram_bits_per_byte", "context"


def section(stack: StackRuns) -> list[Section]:
    """Return the stack's bits per byte above those of the n-gram models."""
    models = ngrams(stack)
    table = Table(
        caption="Bits per byte beside smoothed n-gram models of bytes, fitted on the same training split.",
        text=("Model",),
        numbers=("Bits per byte",),
        bodies=((("this stack", with_interval(stack.find("bits_per_byte"))),), tuple(models.items())),
    )
    return section_of("Against n-gram models", table if models else None)


def ngrams(stack: StackRuns) -> dict[str, str]:
    """Return the bits per byte of the n-gram models beside a stack, which no seed changes."""
    contexts = stack.buckets_of(CONTEXT, MODELS)
    found = {context: stack.find(MODELS, slice=CONTEXT, bucket=context) for context in contexts}
    return {f"bytes, {context} of context": significant(bits.value) for context, bits in found.items() if bits}
