"""Everything that one run found out, as data."""

import dataclasses
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.records import schema1, schema2
from hybridlab.records.description import MeasureDescription, SliceDescription
from hybridlab.records.json_values import from_text, to_text
from hybridlab.records.measurement import Measurement
from hybridlab.type_check import fits

SCHEMA = 3
STATUSES = ("running", "finished", "truncated", "failed", "diverged", "stopped")
ENDED = ("finished", "truncated")  # trained to its end and measured: the same command skips it


@dataclass(kw_only=True)
class RunRecord:
    """One run: its configuration, what it was made with, how it ended, and every number it
    measured.
    """

    schema: int = SCHEMA
    run_id: str
    name: str  # the sweep or experiment: the folder that the run lies in
    # running | finished | truncated (ended before its budget was spent) | failed | diverged; as it
    # is found, stopped: running with its owner gone
    status: str
    reason: str = ""  # why it did not finish, in one line
    failures: int = 0  # how often it has failed, earlier tries included
    seed: int
    config: dict[str, Any]  # as declared, resolved; it composes again to the same run
    derived: dict[str, Any] = field(default_factory=dict)  # what `stack.match` set: dotted key -> value
    choices: dict[str, Any]  # what identifies the stack, in the user's words: dotted key -> value
    identity: dict[str, Any] = field(default_factory=dict)  # what decides the results beside the config
    plan: list[dict[str, Any]] = field(default_factory=list)  # one entry per layer
    versions: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    created: str  # ISO 8601, UTC
    seconds: float = 0.0  # of the whole run
    training: dict[str, Any] = field(default_factory=dict)  # budget, steps, tokens, epochs, seconds, device
    weights: str = ""  # SHA-256 of the file of the final weights; "": not kept
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings, what was scored; the latest last
    missing: dict[str, str] = field(default_factory=dict)  # measure -> the reason why it has no value
    headline: str = ""  # the measure that stacks are ranked by
    measures: dict[str, MeasureDescription] = field(default_factory=dict)  # what each measurement's `measure` means
    slices: dict[str, SliceDescription] = field(default_factory=dict)  # what each measurement's `slice` means
    measurements: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status
        for found in self.measurements:
            assert found.measure in self.measures, f"no description of the measure `{found.measure}`"
            assert found.unit == self.measures[found.measure].unit, (found.measure, found.unit)
            known = not found.slice or found.bucket in self.slices[found.slice].buckets
            assert known, f"no bucket `{found.bucket}` in the slice `{found.slice}`"
            assert not found.evaluation or found.evaluation in self.evaluations, found.evaluation
        self.reason = " ".join(self.reason.split())

    @property
    def evaluation(self) -> dict[str, Any]:
        """The latest evaluation; {} if nothing was evaluated."""
        return next(reversed(self.evaluations.values()), {})

    def to_json(self) -> str:
        """Return the record as JSON: a line per key, and per layer of the plan, description and
        measurement.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["measures"] = {name: found._asdict() for name, found in self.measures.items()}
        content["slices"] = {name: found._asdict() for name, found in self.slices.items()}
        content["measurements"] = [_without_defaults(found) for found in self.measurements]
        lines = [f'"{key}": {_lines(value) if key in _LONG else to_text(value)}' for key, value in content.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> "RunRecord":
        """Read what `to_json` wrote, in this schema or an earlier one.

        A newer schema or a damaged text is refused with a ConfigError that names `source`.
        """
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
        if content["schema"] < SCHEMA:
            try:
                content = schema1.upgraded(content) if content["schema"] == 1 else content
                content = schema2.upgraded(content) if content["schema"] == 2 else content
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ConfigError(f"{source}: damaged, a value that no record holds ({error})") from error
        known = {f.name: f.type for f in fields(cls)}
        for key in known.keys() | content.keys():
            if key not in content or key not in known:
                raise ConfigError(f"{source}: damaged, {'unknown' if key in content else 'missing'} `{key}`")
            if not fits(content[key], known[key]):
                raise ConfigError(f"{source}: damaged, `{key}` is not of the right type")
        try:
            content["measures"] = {name: MeasureDescription(**found) for name, found in content["measures"].items()}
            content["slices"] = {
                name: SliceDescription(**found | {"buckets": tuple(found["buckets"])})
                for name, found in content["slices"].items()
            }
            content["measurements"] = [Measurement(**found) for found in content["measurements"]]
            return cls(**content)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"{source}: damaged, a value that no record holds ({error})") from error


_LONG = ("plan", "evaluations", "measures", "slices", "measurements")


def _lines(values: list[Any] | dict[str, Any]) -> str:
    """Return JSON with a line per item."""
    if isinstance(values, dict):
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {to_text(value)}" for key, value in values.items()) + "\n}"
    return "[\n" + ",\n".join(f"  {to_text(value)}" for value in values) + "\n]"


def _without_defaults(found: Measurement) -> dict[str, Any]:
    defaults = {f.name: f.default for f in fields(Measurement) if f.default is not dataclasses.MISSING}
    return {key: value for key, value in asdict(found).items() if key not in defaults or value != defaults[key]}
