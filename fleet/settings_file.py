"""`kvpilot.yaml` as a file: reading it, writing it, and wording what is wrong with it.

Any mistake becomes one ConfigError of one line that names the file, the field, what was found and what would
be right. Fields are dotted paths, in which models, versions and pools go by their names.
"""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from fleet import checks
from fleet.errors import ConfigError
from fleet.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_LONGEST_VALUE = 80  # characters of a text that an error repeats

_PHRASES = {
    "string_type": "expected text, in quotes where YAML reads a number or a date",
    "path_type": "expected a path",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "tuple_type": "expected a list",
    "too_short": "expected a list of at least one",
}
"""Pydantic's names of errors that need no look at the field."""

_NUMBER_ERRORS = {
    "int_type", "int_parsing", "int_parsing_size", "int_from_float", "float_type", "float_parsing",
    "finite_number", "greater_than_equal", "less_than_equal",
}  # fmt: skip


def load(path: Path) -> Settings:
    """The settings in a YAML file. Raises ConfigError naming file, field, value and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), "", None, f"cannot be read ({error.strerror}): expected a YAML file with `models`"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), "", None, f"cannot be read (byte {error.start}): expected text in UTF-8"
        ) from error
    return parse(_data(text, str(path)), source=str(path))


def parse(data: Any, source: str) -> Settings:
    """The settings in parsed YAML; `source` names it in errors. Raises ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(source, "", _shown(data), "expected a mapping with at least `models`")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        # An unknown field first: misspelt, it is also why another one is missing.
        first = min(error.errors(include_url=False), key=lambda each: not _is_unknown(each))
        raise _config_error(first, data, source) from error


def dump(settings: Settings) -> str:
    """The settings as YAML that `load` reads back to the same."""
    return yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True), sort_keys=False)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice; YAML does too, PyYAML keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            mark = first.setdefault((key.tag, key.value), key.start_mark)
            if mark is not key.start_mark:
                problem = f"expected each key once, {key.value!r} is already in line {mark.line + 1}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node


def _data(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        problem = " ".join((error.problem or error.context or "").split())
        raise ConfigError(source, where, None, f"is not YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(source, "", None, f"is not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # from a number or date that only looks like one
        raise ConfigError(source, "", None, f"is not YAML: {error}; expected quotes around text") from error
    except RecursionError as error:
        raise ConfigError(source, "", None, "is not YAML that can be read: nested too deeply") from error


def _config_error(error: ErrorDetails, data: dict[Any, Any], source: str) -> ConfigError:
    steps = error["loc"]
    path = list(_labels(data, steps))
    if error["type"] == "mistake":  # one of ours, below the section
        told = error["ctx"]
        return ConfigError(source, ".".join([*path, told["field"]]), told["value"], told["expected"])
    if error["type"] == "invalid_key":  # of which pydantic gives the key, in place of its value
        path[-1] = repr(error["input"])
    value = None if error["type"] in ("missing", "invalid_key") else _shown(error["input"])
    return ConfigError(source, ".".join(path), value, _expected(error))


def _labels(data: Any, steps: tuple[int | str, ...]) -> Iterator[str]:
    """The steps of a path from the top, with names in place of numbers where there are names."""
    for step in steps:
        try:
            data = data[step]
        except (LookupError, TypeError):
            data = None
        name = data.get("name") if isinstance(step, int) and isinstance(data, dict) else step
        yield name if isinstance(name, str) and checks.is_name(name) else repr(step)


def _expected(error: ErrorDetails) -> str:
    """What would be right, in our words; pydantic's for an error that we did not foresee."""
    kind, steps = error["type"], error["loc"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        return f"expected {error['ctx']['expected']}"
    if _is_unknown(error):
        return f"unknown field, expected one of {_fields(_section(steps[:-1]), str(steps[-1]))}"
    if kind == "missing":
        return f"is missing, expected {_field(steps).description}"
    if kind == "model_type":
        return f"expected a mapping with some of {_fields(_section(steps))}"
    if kind in _NUMBER_ERRORS:
        return f"expected {_number(_field(steps))}"
    return _PHRASES.get(kind, error["msg"])


def _is_unknown(error: ErrorDetails) -> bool:
    return error["type"] in ("extra_forbidden", "invalid_key")


def _fields(section: type[BaseModel], meant: str = "") -> str:
    """The section's fields, those spelt nearly as `meant` first."""
    near = difflib.get_close_matches(meant, section.model_fields)
    return ", ".join([*near, *(name for name in section.model_fields if name not in near)])


def _field(steps: tuple[int | str, ...]) -> FieldInfo:
    """The field of the schema that a path ends at."""
    last = max(n for n, step in enumerate(steps) if isinstance(step, str))
    return _section(steps[:last]).model_fields[str(steps[last])]


def _section(steps: tuple[int | str, ...]) -> type[BaseModel]:
    """The section of the schema that a path leads to."""
    section: type[BaseModel] = Settings
    for step in steps:
        if isinstance(step, str):
            section = next(_sections_of(section.model_fields[step].annotation))
    return section


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections_of(inner)


def _number(field: FieldInfo) -> str:
    whole = int in (field.annotation, *typing.get_args(field.annotation))
    low = next(bound.ge for bound in field.metadata if hasattr(bound, "ge"))
    high = next(bound.le for bound in field.metadata if hasattr(bound, "le"))
    return f"a {'whole number' if whole else 'number'} from {low} to {high}"


class _Words(str):
    """What was found, where words say it better than the value."""

    __slots__ = ()
    __repr__ = str.__str__


def _shown(value: object) -> object:
    """What an error repeats of a value, on one line."""
    if value is None:
        return _Words("empty")
    if isinstance(value, dict):
        return _Words("a mapping")
    if isinstance(value, list):
        return _Words("a list" if value else "an empty list")
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return value[:_LONGEST_VALUE] + "…"
    return value
