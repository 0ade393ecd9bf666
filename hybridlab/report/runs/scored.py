"""What the numbers of a run were measured on: only numbers of the same text are compared."""

from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord

# Settings of tasks that decide what is trained on, and nothing that is scored.
TRAINING_ONLY = frozenset(
    {"batch", "examples", "training", "order", "length_distribution", "packed", "mix", "_version_", "recall"}
)
# Settings of text tasks that decide the documents of a split.
TEXT = ("_target_", "path", "dataset", "name", "revision", "field", "format", "near_duplicates")
SHARES = ("validation_share", "test_share")


def scored(record: RunRecord) -> str:
    """Return a key that is equal for runs whose numbers are of the same text, "" before any are.

    It is the digest that the evaluation keeps. Records of before it did have the settings that
    decide the text: of documents their source, the split and how much of each is read, in tokens of
    the tokeniser; of generated examples all settings but those of training only.
    """
    stated = record.evaluation
    if not stated:
        return ""
    if digest := stated.get("scored"):
        return str(digest)
    task: dict[str, Any] = record.config.get("task") or {}
    limit = stated.get("limit")
    if is_text(record):
        settings = {key: task.get(key) for key in (*TEXT, *SHARES)}
        tokeniser = None if limit is None else task.get("tokeniser")
    else:
        settings = {key: value for key, value in task.items() if key not in TRAINING_ONLY}
        tokeniser = None
    return to_text(["settings", stated.get("split"), limit, tokeniser, settings], sort_keys=True)


def is_text(record: RunRecord) -> bool:
    """Return whether what was scored are documents, and not generated examples."""
    described = record.hardware.get("task")
    return "documents" in described if described else bool(record.evaluation.get("window"))


def scored_in_words(record: RunRecord) -> str:
    """Return what was scored, short enough to tell it from what another run scored.

    E.g. `test, the first 1,024 of each of 23 documents, 94,208 tokens of bytes`.
    """
    stated = record.evaluation
    task: dict[str, Any] = record.config.get("task") or {}
    text = is_text(record)
    counts = {name: f"{stated[name]:,}" for name in ("documents", "limit", "bytes", "tokens") if stated.get(name)}
    sizes = {key: task[key] for key in ("length", "pairs") if not text and isinstance(task.get(key), int)}
    parts = [f"{stated.get('split', 'test')} split"]
    parts += [f"{counts['documents']} {'documents' if text else 'examples'}"] if "documents" in counts else []
    parts += [f"the first {counts['limit']} of each"] if text and "limit" in counts else []
    parts += [f"{counts[name]} {name}" for name in ("bytes", "tokens") if name in counts]
    parts += [f"tokeniser {task['tokeniser']}"] if task.get("tokeniser") else []
    parts += [f"{key} {value:,}" for key, value in sizes.items()]
    parts += [f"text {str(stated['scored'])[:8]}"] if stated.get("scored") else []
    return ", ".join(parts)
