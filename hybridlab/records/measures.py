"""Every measure that a record may hold: what it is, in which unit, and where its definition comes from."""

from typing import NamedTuple


class Measure(NamedTuple):
    """What one name among the measurements means."""

    unit: str
    definition: str
    source: str


MEASURES = {
    "nll": Measure(
        "nats/token",
        "mean negative log-likelihood of the scored tokens; with a `step`: on the learning curve, before training ended",
        "cross-entropy, Shannon 1948",
    ),
    "bits_per_byte": Measure(
        "bits/byte",
        "negative log2-likelihood of the documents over their bytes: tokenisers compare",
        "arXiv:2101.00027",
    ),
    "perplexity": Measure("1", "exp of the NLL", "Jelinek et al. 1977"),
    "lens": Measure(
        "nats/token",
        "NLL when the residual stream after the layer group is read by the final norm and head",
        "logit lens, nostalgebraist 2020; arXiv:2303.08112",
    ),
    "knockout": Measure(
        "nats/token",
        "NLL when every mixer (or every channel mixer) of the layer group adds nothing, minus the intact NLL",
        "lesion study, arXiv:1605.06431",
    ),
    "parameters": Measure("1", "number of trained values, channel mixers and norms of the layers included", "counted"),
    "flops": Measure("FLOP", "one forward pass over one row", "torch.utils.flop_counter"),
    "state_bytes": Measure("bytes", "decoding state of the mixers after one row", "measured from the tensors"),
    "milliseconds": Measure("ms", "forward and backward over one row, median of repeats", "measured"),
    "tokens_per_second": Measure("tokens/s", "training speed, from data to optimiser step", "measured"),
    "peak_memory_bytes": Measure("bytes", "most memory held: by PyTorch on a GPU, by the process on a CPU", "measured"),
    "ngram_bits_per_byte": Measure(
        "bits/byte",
        "a smoothed byte n-gram model fitted on the same training split; slice `context`, bucket = bytes of context",
        "hybridlab.tasks.ngram",
    ),
}
