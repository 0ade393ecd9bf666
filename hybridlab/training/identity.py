"""What a run is: everything that decides its results.

That is what was declared, the content of the data, the version of each class of hybridlab, and the
source of each class from outside. Where things lie, what is measured afterwards and other changes
of the library make no new run.
"""

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridlab.build import find_target
from hybridlab.records.run_id import identity_fields
from hybridlab.sources import is_outside, source_digest
from hybridlab.tasks.file_digests import file_digests
from hybridlab.training.trainer_arguments import deciding


def identity_of(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """Return the part of a resolved configuration that decides the results, made complete.

    The node `task` has the digest of its data, `_content_`, instead of the settings that name them.
    A node with a `_target_` has the `_version_` of a class of hybridlab, or the digest `_source_`
    of a class from outside, where a setting that names a file or a folder is replaced by the digest
    of its content.
    """
    identity = copy.deepcopy(identity_fields(config))  # lists would be shared otherwise
    identity["trainer"] = deciding(identity["trainer"])
    if content := task.content():
        kept = {key: value for key, value in identity["task"].items() if key not in task.content_settings}
        identity["task"] = {**kept, "_content_": content}
    for path, node in list(_targets(identity, "")):
        target = find_target(node, path)
        if is_outside(target):
            named = {key: digest for key, value in node.items() if (digest := _content_of(value)) is not None}
            node |= {**named, "_source_": source_digest(target)}
        elif (version := getattr(target, "version", None)) is not None:
            node["_version_"] = version
    return identity


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping with a `_target_` below a node, with its dotted path."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{path}.{number}")


def _content_of(value: Any) -> str | None:
    """Return the digest of the file or folder that a setting names; None if it names none.

    Only what is spelled as a path counts: `mode: train` is no folder, wherever the run starts.
    """
    if not isinstance(value, str) or not ({"/", "\\", "."} & set(value)) or "://" in value:
        return None
    try:
        path = Path(value).expanduser().resolve()
        if path.is_file():
            return file_digests([path])[0]
        if path.is_dir():
            files = [each for each in sorted(path.rglob("*")) if each.is_file()]
            named = zip(files, file_digests(files), strict=True)
            lines = [f"{each.relative_to(path).as_posix()} {digest}" for each, digest in named]
            return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    except (OSError, ValueError):  # a text that cannot be a path, a file that cannot be read
        return None
    return None
