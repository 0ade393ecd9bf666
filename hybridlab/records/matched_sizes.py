"""The sizes that `stack.match` set in records of schema 1 and 2, which kept them among the choices.

There, a stack's own hidden width of the channel mixer looked like a choice that its author made, so
that no two matched stacks differed in one layer group only. What was declared in place of a fitted
size was not kept; what remains of the choices is what was declared.
"""

from typing import Any

# class -> its free sizes that change the number of parameters, and those that change only FLOPs or
# state; as they were when schema 2 was written
_FREE_SIZES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Moba": ((), ("top_k",)),
    "Routing": ((), ("window",)),
    "Bigbird": ((), ("random_blocks",)),
    "Dilated": ((), ("window",)),
    "Nsa": ((), ("top_k", "window")),
    "Sliding": ((), ("window",)),
    "LongConv": (("conv_size",), ()),
    "H3": (("state",), ()),
    "Nystrom": ((), ("landmarks",)),
    "NystromCausal": ((), ("landmarks",)),
    "Linformer": (("rank",), ()),
    "LinformerCausal": (("rank",), ()),
    "Performer": ((), ("features",)),
    "GatedDelta": (("value_ratio", "expand_k"), ()),
    "GLA": (("expand_v", "expand_k"), ()),
    "Retention": (("expand_v",), ()),
    "Based": (("feature_width",), ()),
    "S4D": (("state",), ()),
    "S4": (("state",), ()),
    "Mamba": (("expand", "state"), ()),
    "Mamba2": (("expand", "state"), ()),
    "LRU": (("state",), ()),
    "Rglru": (("expand",), ()),
}
_CHANNEL = ("stack.channel.expansion", "stack.channel.multiple")


def without_matched(choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the choices that were declared, and those that `stack.match` set, by dotted key."""
    what = choices.get("stack.match", next((key for key in choices if key.startswith("stack.match.")), None))
    if what is None:
        return choices, {}
    by_params = str(what).rpartition(".")[2] == "params"
    derived = {key: value for key, value in choices.items() if _is_fitted(key, choices, by_params=by_params)}
    return {key: value for key, value in choices.items() if key not in derived}, derived


def _is_fitted(key: str, choices: dict[str, Any], *, by_params: bool) -> bool:
    if key in _CHANNEL:
        return True
    node, _, setting = key.rpartition(".")
    if not node.startswith("stack.groups."):
        return False
    of_parameters, of_others = _FREE_SIZES.get(str(choices.get(f"{node}._target_")).rpartition(".")[2], ((), ()))
    return setting in of_parameters or (setting in of_others and not by_params)
