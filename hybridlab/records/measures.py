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
    "accuracy": Measure("1", "share of the scored tokens whose target is the likeliest token", "counted"),
    "example_accuracy": Measure(
        "1",
        "mean over examples of the share of an example's scored tokens that are right",
        "arXiv:2312.04927, its code",
    ),
    "mean_knockout": Measure(
        "nats/token",
        "as `knockout`, but the mixers add their mean output over training positions instead of nothing",
        "mean ablation, arXiv:2211.00593",
    ),
    "tuned_lens": Measure(
        "nats/token",
        "as `lens`, after an affine map to the last residual stream, fitted on the training split by ridge regression",
        "arXiv:2303.08112",
    ),
    "reach": Measure(
        "nats/token",
        "NLL when every mixer of the layer group sees the `block` tokens before each, less than 2 `block`, minus the intact NLL",
        "hybridlab",
    ),
    "reach_tokens": Measure(
        "tokens", "the smallest block of `reach` from which on none costs anything measurable", "hybridlab"
    ),
    "interaction": Measure(
        "nats/token",
        "knockout of two layer groups at once, minus the sum of their own: above 0 where one does the other's work",
        "arXiv:2307.15771",
    ),
    "attention_distance": Measure(
        "tokens",
        "mean distance between a position and the tokens that it attends to, weighted by attention",
        "hybridlab",
    ),
    "attention_entropy": Measure("nats", "mean entropy of the attention of a head and position", "arXiv:1906.04341"),
    "attention_first": Measure("1", "mean attention on the first token", "attention sink, arXiv:2309.17453"),
    "influence": Measure(
        "1",
        "share of the norm of d loss[t] / d input[t-k], by way of a mixer of the layer group alone, at a `lag` k",
        "effective memory by gradient, hybridlab",
    ),
    "memory_tokens": Measure("tokens", "mean lag, weighted by `influence`", "hybridlab"),
    "block_influence": Measure(
        "1", "1 - mean cosine of the residual stream before and after the layers", "arXiv:2403.03853"
    ),
    "similarity": Measure(
        "1", "linear CKA between what two layer groups add to the residual stream", "arXiv:1905.00414"
    ),
    "streamed_nll": Measure(
        "nats/token",
        "NLL when a document is read whole, its state (a bounded cache where it grows) carried from piece to piece",
        "hybridlab",
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
        "hybridlab.tasks.text.ngram",
    ),
}
