"""Everything that one run found out, as data."""

import dataclasses
import types
import typing
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.records.json_values import from_text, to_text
from hybridlab.records.measurement import Measurement

SCHEMA = 1
STATUSES = ("running", "finished", "failed", "diverged", "stopped")


@dataclass(kw_only=True)
class RunRecord:
    """One run: what was asked for, with what, how it ended, and every number it measured."""

    schema: int = SCHEMA
    run_id: str
    name: str  # the sweep or experiment: the folder that the run lies in
    status: str  # running | finished | failed | diverged; as it is found, stopped: running with its owner gone
    reason: str = ""  # why it did not finish, in one line
    failures: int = 0  # how often it has failed, earlier tries included
    seed: int
    config: dict[str, Any]  # resolved
    choices: dict[str, Any]  # what identifies the stack, in the user's words: dotted key -> value
    plan: list[dict[str, Any]] = field(default_factory=list)  # one entry per layer
    versions: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    created: str  # ISO 8601, UTC
    seconds: float = 0.0
    evaluation: dict[str, Any] = field(default_factory=dict)  # split, window, stride, tokens, documents
    measurements: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status
        self.reason = " ".join(self.reason.split())

    def to_json(self) -> str:
        """Return the record as JSON: a key per line, a layer of the plan or a measurement per line."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["measurements"] = [_without_defaults(row) for row in self.measurements]
        lines = [f'"{key}": {_rows(value) if key in _LONG else to_text(value)}' for key, value in content.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> "RunRecord":
        """Read what `to_json` wrote; refuse a newer schema or a damaged text with a ConfigError that names `source`."""
        try:
            content = from_text(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source}: damaged, not JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
            raise ConfigError(f"{source}: not a run record: no `schema`")
        if content["schema"] > SCHEMA:
            raise ConfigError(
                f"{source}: schema {content['schema']}, written by a newer hybridlab; this one reads up to {SCHEMA}"
            )
        content.setdefault("failures", 0)  # the first records did not count them
        known = {f.name: f.type for f in fields(cls)}
        for key in known.keys() | content.keys():
            if key not in content or key not in known:
                raise ConfigError(f"{source}: damaged, {'unknown' if key in content else 'missing'} `{key}`")
            if not _fits(content[key], known[key]):
                raise ConfigError(f"{source}: damaged, `{key}` is not of the right type")
        try:
            rows = [Measurement(**row) for row in content.pop("measurements")]
            return cls(**content, measurements=rows)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"{source}: damaged, a value that no record holds ({error})") from error


_LONG = ("plan", "measurements")


def _rows(values: list[Any]) -> str:
    return "[\n" + ",\n".join(f"  {to_text(value)}" for value in values) + "\n]" if values else "[]"


def _without_defaults(row: Measurement) -> dict[str, Any]:
    defaults = {f.name: f.default for f in fields(Measurement) if f.default is not dataclasses.MISSING}
    return {key: value for key, value in asdict(row).items() if key not in defaults or value != defaults[key]}


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(hint) or hint)
