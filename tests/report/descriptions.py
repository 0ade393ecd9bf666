"""Descriptions of the measures and slices in made-up records."""

import re

from hybridlab.records.description import MeasureDescription, SliceDescription

# name -> unit, direction, heading, measure of differences
_MEASURES = {
    "nll": ("nats/token", "lower", "NLL\n(nats/token)", ""),
    "bits_per_byte": ("bits/byte", "lower", "Bits per\nbyte", "nll"),
    "perplexity": ("1", "lower", "Perplexity", "nll"),
    "accuracy": ("1", "higher", "Accuracy", ""),
    "example_accuracy": ("1", "higher", "Accuracy\nby example", ""),
    "streamed_nll": ("nats/token", "lower", "NLL streamed\n(nats/token)", ""),
    "lens": ("nats/token", "", "Logit lens\nNLL", ""),
    "tuned_lens": ("nats/token", "", "Tuned lens\nNLL", ""),
    "knockout": ("nats/token", "", "Zero\nablation", ""),
    "mean_knockout": ("nats/token", "", "Mean\nablation", ""),
    "reach": ("nats/token", "", "Reach\n(nats/token)", ""),
    "reach_tokens": ("tokens", "", "Reach\n(tokens)", ""),
    "interaction": ("nats/token", "", "Interaction", ""),
    "attention_distance": ("tokens", "", "Attention\ndistance\n(tokens)", ""),
    "attention_entropy": ("nats", "", "Attention\nentropy\n(nats)", ""),
    "attention_first": ("1", "", "Attention on\nfirst token", ""),
    "influence": ("1", "", "Influence", ""),
    "memory_tokens": ("tokens", "", "Memory\n(tokens)", ""),
    "block_influence": ("1", "", "Block\ninfluence", ""),
    "similarity": ("1", "", "Similarity\n(CKA)", ""),
    "parameters": ("1", "", "Params", ""),
    "flops": ("FLOP", "", "FLOPs", ""),
    "state_bytes": ("bytes", "", "State\nbytes", ""),
    "milliseconds": ("ms", "", "ms", ""),
    "tokens_per_second": ("tokens/s", "", "Tokens/s", ""),
    "peak_memory_bytes": ("bytes", "", "Peak memory\n(bytes)", ""),
    "ngram_bits_per_byte": ("bits/byte", "", "Bits per\nbyte", ""),
}
MEASURES = {
    name: MeasureDescription(unit, f"what {name} measures", "made up", better, title, compared)
    for name, (unit, better, title, compared) in _MEASURES.items()
}
_LABELS = {"recall": ("other tokens", "recall")}
_PROMINENT = ("recall", "pairs")


def described(measurements, measures=MEASURES):
    """Return the headline and the descriptions of some measurements, as fields of a record."""
    names = dict.fromkeys(each.measure for each in measurements)
    slices = {}
    for each in measurements:
        if each.slice:
            slices.setdefault(each.slice, {})[each.bucket] = None
    likely = ("bits_per_byte", "accuracy", "nll")
    return {
        "headline": next((name for name in likely if name in names), ""),
        "measures": {name: measures[name] for name in names},
        "slices": {name: _slice(name, buckets) for name, buckets in slices.items()},
    }


def _slice(name, buckets):
    labels = _LABELS.get(name)
    order = labels.index if labels else lambda bucket: int(re.search(r"\d+", bucket)[0])
    words = f"{name.replace('_', ' ')} of the target"
    return SliceDescription(words, tuple(sorted(buckets, key=order)), name in _PROMINENT)
