"""Records of schema 1, as hybridlab 0.1 wrote them: read, and brought into the present schema.

Schema 1 kept no descriptions: what its measures and slices meant is written down here once, and
never changes.
"""

import re
from typing import Any

from hybridlab.renamed import SETTINGS, TARGETS

# name -> unit, definition, source, direction, heading of its column, measure by which differences
# are tested
MEASURES: dict[str, tuple[str, str, str, str, str, str]] = {
    "nll": (
        "nats/token",
        "mean negative log-likelihood of the scored tokens; with a `step`: on the learning curve, before training ended",
        "cross-entropy, Shannon 1948",
        "lower",
        "NLL\n(nats/token)",
        "",
    ),
    "bits_per_byte": (
        "bits/byte",
        "negative log2-likelihood of the documents over their bytes: tokenisers compare",
        "arXiv:2101.00027",
        "lower",
        "Bits per\nbyte",
        "nll",
    ),
    "perplexity": ("1", "exp of the NLL", "Jelinek et al. 1977", "lower", "Perplexity", "nll"),
    "lens": (
        "nats/token",
        "NLL when the residual stream after the layer group is read by the final norm and head",
        "logit lens, nostalgebraist 2020; arXiv:2303.08112",
        "",
        "Logit lens\nNLL",
        "",
    ),
    "knockout": (
        "nats/token",
        "NLL when every mixer (or every channel mixer) of the layer group adds nothing, minus the intact NLL",
        "lesion study, arXiv:1605.06431",
        "",
        "Zero\nablation",
        "",
    ),
    "accuracy": (
        "1",
        "share of the scored tokens whose target is the likeliest token",
        "counted",
        "higher",
        "Accuracy",
        "",
    ),
    "example_accuracy": (
        "1",
        "mean over examples of the share of an example's scored tokens that are right",
        "arXiv:2312.04927, its code",
        "higher",
        "Accuracy\nby example",
        "",
    ),
    "mean_knockout": (
        "nats/token",
        "as `knockout`, but the mixers add their mean output over training positions instead of nothing",
        "mean ablation, arXiv:2211.00593",
        "",
        "Mean\nablation",
        "",
    ),
    "tuned_lens": (
        "nats/token",
        "as `lens`, after an affine map to the last residual stream, fitted on the training split by ridge regression",
        "arXiv:2303.08112",
        "",
        "Tuned lens\nNLL",
        "",
    ),
    "reach": (
        "nats/token",
        "NLL when every mixer of the layer group sees the `block` tokens before each, less than 2 `block`, minus the intact NLL",
        "hybridlab",
        "",
        "Reach\n(nats/token)",
        "",
    ),
    "reach_tokens": (
        "tokens",
        "the smallest block of `reach` from which on none costs anything measurable",
        "hybridlab",
        "",
        "Reach\n(tokens)",
        "",
    ),
    "interaction": (
        "nats/token",
        "knockout of two layer groups at once, minus the sum of their own: above 0 where one does the other's work",
        "arXiv:2307.15771",
        "",
        "Interaction",
        "",
    ),
    "attention_distance": (
        "tokens",
        "mean distance between a position and the tokens that it attends to, weighted by attention",
        "hybridlab",
        "",
        "Attention\ndistance\n(tokens)",
        "",
    ),
    "attention_entropy": (
        "nats",
        "mean entropy of the attention of a head and position",
        "arXiv:1906.04341",
        "",
        "Attention\nentropy\n(nats)",
        "",
    ),
    "attention_first": (
        "1",
        "mean attention on the first token",
        "attention sink, arXiv:2309.17453",
        "",
        "Attention on\nfirst token",
        "",
    ),
    "influence": (
        "1",
        "share of the norm of d loss[t] / d input[t-k], by way of a mixer of the layer group alone, at a `lag` k",
        "effective memory by gradient, hybridlab",
        "",
        "Influence",
        "",
    ),
    "memory_tokens": ("tokens", "mean lag, weighted by `influence`", "hybridlab", "", "Memory\n(tokens)", ""),
    "block_influence": (
        "1",
        "1 - mean cosine of the residual stream before and after the layers",
        "arXiv:2403.03853",
        "",
        "Block\ninfluence",
        "",
    ),
    "similarity": (
        "1",
        "linear CKA between what two layer groups add to the residual stream",
        "arXiv:1905.00414",
        "",
        "Similarity\n(CKA)",
        "",
    ),
    "streamed_nll": (
        "nats/token",
        "NLL when a document is read whole, its state (a bounded cache where it grows) carried from piece to piece",
        "hybridlab",
        "lower",
        "NLL streamed\n(nats/token)",
        "",
    ),
    "parameters": (
        "1",
        "number of trained values, channel mixers and norms of the layers included",
        "counted",
        "",
        "Params",
        "",
    ),
    "flops": ("FLOP", "one forward pass over one row", "torch.utils.flop_counter", "", "FLOPs", ""),
    "state_bytes": (
        "bytes",
        "decoding state of the mixers after one row",
        "measured from the tensors",
        "",
        "State\nbytes",
        "",
    ),
    "milliseconds": ("ms", "forward and backward over one row, median of repeats", "measured", "", "ms", ""),
    "tokens_per_second": ("tokens/s", "training speed, from data to optimiser step", "measured", "", "Tokens/s", ""),
    "peak_memory_bytes": (
        "bytes",
        "most memory held: by PyTorch on a GPU, by the process on a CPU",
        "measured",
        "",
        "Peak memory\n(bytes)",
        "",
    ),
    "ngram_bits_per_byte": (
        "bits/byte",
        "a smoothed byte n-gram model fitted on the same training split; slice `context`, bucket = bytes of context",
        "hybridlab.tasks.ngram",
        "",
        "Bits per\nbyte",
        "",
    ),
}

# name -> definition, words for its buckets in their order, whether the terminal shows it
SLICES: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "document": ("the document or the example: the sampling unit of intervals, a bucket each on request", (), False),
    "position": ("place of the target in its document, counted from 0", (), False),
    "relative_position": (
        "place of the target in its document, in training lengths",
        ("0-1x", "1-2x", "2-4x", "4-8x", "8x-"),
        False,
    ),
    "length": ("tokens of the example", (), False),
    "pairs": ("key-value pairs in the example", (), True),
    "distance": ("tokens between the target and the place that tells it", (), False),
    "depth": ("where in the document the needle lies, in tenths of it", (), False),
    "recall": (
        "whether the target completes an n-gram that its document has shown before, and training documents seldom do",
        ("other tokens", "recall"),
        True,
    ),
    "recall_distance": ("tokens since the n-gram that a recall target completes was last seen", (), False),
    "context": ("bytes of context of an n-gram model", (), False),
    "lag": ("tokens between a position and the earlier one that it depends on", (), False),
}


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record of schema 1 as schema 2 has it; the numbers stay as they
    are."""
    content = {"failures": 0, **content}  # the first records did not count failures
    measured = content["measurements"]
    names = dict.fromkeys(found["measure"] for found in measured)
    slices: dict[str, dict[str, None]] = {}
    for found in measured:
        if found.get("slice"):
            slices.setdefault(found["slice"], {})[found["bucket"]] = None
    return {
        **content,
        "schema": 2,
        "config": _renamed(content["config"]) | _evaluation(content["config"]),
        "choices": _renamed_choices(content["choices"]),
        "plan": _renamed(content["plan"]),
        "evaluation": _summary(content["evaluation"]),
        "headline": _headline(names),
        "measures": {name: dict(zip(_MEASURE, MEASURES[name], strict=True)) for name in names},
        "slices": {name: _slice(name, buckets) for name, buckets in slices.items()},
    }


_EVALUATION = "hybridlab.evaluation.evaluation.Evaluation"
_MEASURE = ("unit", "definition", "source", "better", "title", "compared")


def _slice(name: str, buckets: dict[str, None]) -> dict[str, Any]:
    """Describe a slice by the buckets that the measurements have: by their labels, else by their
    first number.
    """
    definition, labels, prominent = SLICES[name]

    def place(bucket: str) -> float:
        if bucket in labels:
            return float(labels.index(bucket))
        number = re.search(r"\d+(\.\d+)?", bucket)
        return float(number[0]) if number else float("inf")

    return {"definition": definition, "buckets": sorted(buckets, key=place), "prominent": prominent}


def _headline(names: dict[str, None]) -> str:
    """Return what schema 1 ranked by: accuracy unless bits per byte were measured too, else bits
    per byte or NLL.
    """
    if "accuracy" in names and "bits_per_byte" not in names:
        return "accuracy"
    return "bits_per_byte" if "bits_per_byte" in names else "nll" if "nll" in names else ""


def _renamed(node: Any) -> Any:
    """Rename the targets, and the settings of each target, anywhere below a node of the
    configuration.
    """
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    target = TARGETS.get(str(node.get("_target_")), node.get("_target_"))
    names = SETTINGS.get(str(target), {})
    return {names.get(key, key): target if key == "_target_" else _renamed(item) for key, item in node.items()}


def _renamed_choices(choices: dict[str, Any]) -> dict[str, Any]:
    """Rename the same in choices, whose keys are dotted paths."""
    targets = {"evaluation": _EVALUATION} | {
        key.removesuffix("._target_"): TARGETS.get(str(found), str(found))
        for key, found in choices.items()
        if key.endswith("._target_")
    }
    renamed: dict[str, Any] = {}
    for key, found in choices.items():
        node, _, setting = key.rpartition(".")
        setting = SETTINGS.get(targets.get(node, ""), {}).get(setting, setting)
        renamed[f"{node}.{setting}" if node else setting] = targets[node] if setting == "_target_" else found
    return renamed


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Rename what a record says of how it was evaluated."""
    summary = _evaluation({"evaluation": evaluation})["evaluation"]
    return {"intervention_tokens" if key == "probed_tokens" else key: found for key, found in summary.items()}


def _evaluation(config: dict[str, Any]) -> dict[str, Any]:
    """Rename the settings of the evaluation; what `also` measured joins the list of measures."""
    if not isinstance(settings := config.get("evaluation"), dict):
        return {}
    names = SETTINGS[_EVALUATION]
    renamed = {names.get(key, key): _renamed(found) for key, found in settings.items() if key != "also"}
    if "measures" in renamed:
        renamed["measures"] = [*renamed["measures"], *settings.get("also", {})]
    return {"evaluation": renamed}
