"""What a run costs: measured of every run, whatever else it measures."""

from hybridlab.evaluation.measures.base import Measure
from hybridlab.tasks.slices import Slice

CONTEXT = Slice("context", "bytes of context of an n-gram model")


class Parameters(Measure):
    """The number of trained values."""

    name = "parameters"
    unit = "1"
    definition = "number of trained values, channel mixers and norms of the layers included"
    source = "counted"
    title = "Params"


class FLOPs(Measure):
    """The floating-point operations of a forward pass."""

    name = "flops"
    unit = "FLOP"
    definition = "one forward pass over one sequence"
    source = "torch.utils.flop_counter"
    title = "FLOPs"


class StateBytes(Measure):
    """The bytes of the decoding state."""

    name = "state_bytes"
    unit = "bytes"
    definition = "decoding state of the mixers after one sequence"
    source = "measured from the tensors"
    title = "State\nbytes"


class Milliseconds(Measure):
    """The time of a forward and backward pass."""

    name = "milliseconds"
    unit = "ms"
    definition = "forward and backward over one sequence, median of repeats"
    source = "measured"
    title = "ms"


class TokensPerSecond(Measure):
    """The speed of training."""

    name = "tokens_per_second"
    unit = "tokens/s"
    definition = "training speed, from data to optimiser step"
    source = "measured"
    title = "Tokens/s"


class PeakMemoryBytes(Measure):
    """The most memory that was held."""

    name = "peak_memory_bytes"
    unit = "bytes"
    definition = "most memory held: by PyTorch on a GPU, by the process on a CPU"
    source = "measured"
    title = "Peak memory\n(bytes)"


class NgramBitsPerByte(Measure):
    """What byte n-gram models achieve on the same data."""

    name = "ngram_bits_per_byte"
    unit = "bits/byte"
    definition = "a smoothed byte n-gram model fitted on the same training split; by bytes of context"
    source = "hybridlab.tasks.text.ngram"
    title = "Bits per\nbyte"
    slices = (CONTEXT,)
