"""The report's part of a sweep's file: the shape of the table, a paper's figures, the claims."""

from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from hybridlab.config import REPORTED, sweep_files
from hybridlab.errors import ConfigError, near_miss
from hybridlab.report.runs.tuning import TUNED
from hybridlab.report.sweeps.claims import Cell, Claim, Form, Inequality, Term
from hybridlab.report.sweeps.requirements import Compared, read_requirement
from hybridlab.report.sweeps.selection import Selection

GRADES = {"A": "primary source", "B": "transcriptions that agree", "C": "one third-party transcription"}
RELATIONS = {"<": -1, ">": 1, "within": 0}
_TABLE = ("title", "note", "discussion", "rows", "columns")  # any other key selects the number of every cell
_CLAIM = ("left", "relation", "right", "margin", "chain", "requires", "across_tasks")
_PUBLISHED = ("paper", "source", "grade", "csv", "figures")


@dataclass(frozen=True)
class Published:
    """The figures of one source."""

    paper: str
    source: str
    grade: str  # a key of GRADES
    csv: str
    figures: dict[Cell, float]


@dataclass(frozen=True)
class Sweep:
    """A sweep's table: the number of each cell, a paper's figure for it, and the claims."""

    name: str
    title: str
    note: str  # how it differs from the paper
    discussion: str  # of the measured numbers, by the sweep's authors
    tuned: tuple[str, ...]
    cells: dict[Cell, Selection]
    published: tuple[Published, ...]
    claims: tuple[Claim, ...]

    def source(self, cell: Cell) -> Published | None:
        """Return the first source that has a figure for the cell."""
        return next((source for source in self.published if cell in source.figures), None)

    def figure(self, cell: Cell) -> float | None:
        """Return the paper's figure for the cell."""
        source = self.source(cell)
        return source.figures[cell] if source else None


def read_sweep(name: str) -> Sweep:
    """Read the sweep of this name."""
    files = sweep_files()
    if name not in files:
        raise ConfigError(f"`--sweep {name}`: no such sweep; {near_miss(name, files)}")
    sweep = parse(files[name])
    if sweep is None:
        raise ConfigError(f"sweeps/{name}.yaml: no `table` to show; `hybridlab report runs/{name}` compares its runs")
    return sweep


def declares_table(name: str) -> bool:
    """Return whether a sweep of this name exists and has a table."""
    files = sweep_files()
    return name in files and parse(files[name]) is not None


def parse(file: Path) -> Sweep | None:
    """Read a sweep's file, None if it has no table; refuse unknown keys with the near miss."""
    words = _words(file)
    location = f"sweeps/{file.name}"
    if "table" not in words:
        return None
    table = _mapping(words["table"], f"{location}: `table`")
    if "reading" in table:
        raise ConfigError(f"{location}: `table.reading`: renamed, write `table.discussion`")
    common = {key: word for key, word in table.items() if key not in _TABLE}
    rows = {str(key): _mapping(word, f"{location}: `table.rows.{key}`") for key, word in table.get("rows", {}).items()}
    columns = {
        str(key): _mapping(word, f"{location}: `table.columns.{key}`") for key, word in table.get("columns", {}).items()
    }
    if not rows:
        raise ConfigError(f"{location}: `table.rows`: must have at least one row")
    grid = _Grid(location, common, rows, columns or {"": {}})
    return Sweep(
        name=file.stem,
        title=str(table.get("title", file.stem)),
        note=str(table.get("note", "")),
        discussion=str(table.get("discussion", "")),
        tuned=tuple(words.get("tuned", TUNED)),
        cells={
            (row, column): grid.number({"row": row, "column": column}, f"{location}: `{row}`")
            for row, column in grid.cells
        },
        published=tuple(grid.published(source) for source in words.get("published", [])),
        claims=tuple(grid.claim(str(claim), given) for claim, given in words.get("claims", {}).items()),
    )


def _words(file: Path) -> dict[str, Any]:
    """Return the report's keys of a file, merged over those of the sweeps in its `defaults`."""
    from omegaconf import OmegaConf

    loaded: Any = OmegaConf.load(file)
    files = sweep_files()
    bases = [_words(files[name]) for name in loaded.get("defaults", []) if isinstance(name, str) and name in files]
    own = OmegaConf.masked_copy(loaded, [key for key in loaded if key in REPORTED])
    return OmegaConf.to_container(OmegaConf.merge(*bases, own))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Grid:
    """The rows and columns by name; figures and claims refer to these."""

    location: str
    common: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    columns: dict[str, dict[str, Any]]

    @property
    def cells(self) -> list[Cell]:
        return [(row, column) for row in self.rows for column in self.columns]

    def number(self, words: dict[str, Any], location: str) -> Selection:
        """Return the number that a row, a column (by default the first) and other fields select."""
        row, column = words.get("row"), words.get("column", next(iter(self.columns)))
        self.known(row, self.rows, "row", location)
        self.known(column, self.columns, "column", location)
        further = {key: word for key, word in words.items() if key not in ("row", "column")}
        return Selection.of({**self.common, **self.columns[str(column)], **self.rows[str(row)], **further}, location)

    def known(self, name: Any, allowed: Any, what: str, location: str) -> None:
        if str(name) not in allowed:
            raise ConfigError(f"{location}: no {what} is called `{name}`; {near_miss(str(name), allowed)}")

    def published(self, given: Any) -> Published:
        location = f"{self.location}: `published`"
        given = _mapping(given, location)
        _only(given, _PUBLISHED, location)
        self.known(given.get("grade"), GRADES, "grade", location)
        figures: dict[Cell, float] = {}
        for row, found in given.get("figures", {}).items():
            self.known(row, self.rows, "row", location)
            by_column = found if isinstance(found, dict) else {next(iter(self.columns)): found}
            for column, figure in by_column.items():
                self.known(column, self.columns, "column", location)
                figures[str(row), str(column)] = float(figure)
        paper, source, csv = (str(given.get(key, "")) for key in ("paper", "source", "csv"))
        return Published(paper, source, given["grade"], csv, figures)

    def claim(self, words: str, given: Any) -> Claim:
        location = f"{self.location}: claim `{words}`"
        given = _mapping(given, location)
        _only(given, _CLAIM, location)
        relation, margin = given.get("relation", ""), float(given.get("margin", 0))
        self.known(relation, RELATIONS, "relation", location)
        sides = given["chain"] if "chain" in given else [given.get("left"), given.get("right")]
        if len(sides) < 2 or None in sides or ("chain" in given and ("left" in given or "right" in given)):
            raise ConfigError(f"{location}: give a `left` and a `right` side, or a `chain` of sides")
        inequalities = []
        for left, right in (pair for two in pairwise(sides) for pair in product(*map(_each, two))):
            form = self.difference(left, right, location)
            if relation == "within":
                inequalities += [Inequality(form, 1, -margin), Inequality(form, -1, -margin)]
            else:
                inequalities.append(Inequality(form, RELATIONS[relation], margin))
        requires = _mapping(given.get("requires", {}), f"{location}: `requires`")
        read = (read_requirement(str(name), each, location, self.row) for name, each in requires.items())
        across = given.get("across_tasks", False)
        if not isinstance(across, bool):
            raise ConfigError(f"{location}: `across_tasks: {across}`: must be true or false")
        return Claim(words, tuple(inequalities), tuple(read), across)

    def row(self, row: str, column: str | None, location: str) -> Compared:
        """Return a row that a precondition names, in a column, by default the first."""
        words = {"row": row} if column is None else {"row": row, "column": column}
        return Compared(row, "" if column is None else str(column), self.number(words, location))

    def difference(self, left: Any, right: Any, location: str) -> Form:
        constant, terms = 0.0, []
        for sign, side in ((1.0, left), (-1.0, right)):
            if isinstance(side, int | float):
                constant += sign * side
            else:
                terms += self.terms(side, sign, location)
        if not terms:
            raise ConfigError(f"{location}: both sides are constants; one must be measured")
        return Form(f"{_in_words(left)} − {_in_words(right)}", constant, tuple(terms))

    def terms(self, side: Any, sign: float, location: str) -> list[Term]:
        """Return the terms of a side: a row, or a mapping of `row`, `column`, `minus`, `times`."""
        side = dict(side) if isinstance(side, dict) else {"row": side}
        minus, times = side.pop("minus", None), side.pop("times", 1)
        in_total = times == "tokens"
        coefficient = sign if in_total else sign * float(times)
        named = set(side) <= {"row", "column"}
        cell = (str(side.get("row")), str(side.get("column", next(iter(self.columns))))) if named else None
        terms = [Term(coefficient, self.number(side, location), cell, in_total, str(side.get("row")))]
        if minus is not None:
            other = {**side, "times": times, **(minus if isinstance(minus, dict) else {"row": minus})}
            terms += self.terms(other, -sign, location)
        return terms


def _each(side: Any) -> list[Any]:
    """Return a side per row that it names: a claim about several rows is made of each of them."""
    named = side if isinstance(side, dict) else {"row": side}
    rows = named.get("row")
    return [{**named, "row": row} for row in rows] if isinstance(rows, list) else [side]


def _in_words(side: Any) -> str:
    """Return a side of an inequality as text, e.g. `hyena - full (recall)`."""
    if not isinstance(side, dict):
        return str(side)
    minus, times = side.get("minus"), side.get("times")
    further = ", ".join(str(word) for key, word in side.items() if key not in ("row", "minus", "times"))
    name = f"{side.get('row')}{f' ({further})' if further else ''}"
    name = name if minus is None else f"({name} − {_in_words(minus)})"
    return name if times is None else f"{times} × {name}"


def _mapping(words: Any, location: str) -> dict[str, Any]:
    if not isinstance(words, dict):
        raise ConfigError(f"{location}: `{words}`: must be a mapping")
    return words


def _only(words: dict[str, Any], allowed: tuple[str, ...], location: str) -> None:
    for key in words:
        if key not in allowed:
            raise ConfigError(f"{location}: no such key `{key}`; {near_miss(key, allowed)}")
