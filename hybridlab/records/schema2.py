"""Records of schema 2, as hybridlab 0.2 wrote them, brought into the present schema."""

from typing import Any

from hybridlab.records.evaluation_key import COUNTS, evaluation_key
from hybridlab.records.matched_sizes import without_matched


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record of schema 2 as schema 3 has it; the numbers stay as they are.

    Schema 2 held one evaluation; the measurements on held-out data that are not on the learning
    curve belong to it.
    """
    content = dict(content)
    evaluation = content.pop("evaluation")
    settings = {name: value for name, value in evaluation.items() if name not in (*COUNTS, "measures")}
    key = evaluation_key(settings) if evaluation else ""
    names = evaluation.get("measures", [])
    choices, derived = without_matched(content["choices"])
    return {
        "derived": derived,
        "identity": {},
        "training": {},
        "weights": "",
        "missing": {},
        **content,
        "choices": choices,
        "schema": 3,
        "evaluations": {key: {**evaluation, "measures": {name: {} for name in names}}} if key else {},
        "measurements": [_with_evaluation(found, key) for found in content["measurements"]],
    }


def _with_evaluation(found: dict[str, Any], key: str) -> dict[str, Any]:
    evaluated = found.get("split") in ("test", "validation") and found.get("step") is None
    return {**found, "evaluation": key} if evaluated and key else found
