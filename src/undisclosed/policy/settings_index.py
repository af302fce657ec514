"""An index of all settings, made from the schema: kind, default and description, and how a file writes a value.

The reference page, `check-config` and the errors of `config` use it, so that each setting is described once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from undisclosed.policy import Policy
from undisclosed.policy.policy import NOT_USED_YET
from undisclosed.policy.sections import Section
from undisclosed.policy.types import duration_text


class Setting(NamedTuple):
    """One setting of one section."""

    key: str
    kind: str
    """Its values in words: `text`, `a whole number from 1 to 64`, `a list of texts`, `"json" or "console"`."""
    choices: tuple[str, ...]
    """The texts that it takes (for a list: the texts that may be in it); empty if any text will do."""
    required: bool
    default: object
    """None if it is required, or if a setting that is left out does not apply."""
    example: str
    """The default, or an example where there is none, as a file writes it."""
    description: str
    used: bool
    """Whether this version uses it."""


class SectionInfo(NamedTuple):
    """A section of the configuration. `name` is empty for the settings at the top."""

    name: str
    repeated: bool
    """Whether it is written `[[name]]`, any number of times."""
    description: str
    settings: Mapping[str, Setting]


@cache
def all_sections() -> Mapping[str, SectionInfo]:
    """The sections by name, in the order of the schema; the settings at the top come first."""
    top, named = {}, {}
    for name, field in Policy.model_fields.items():
        model = _section(field.annotation)
        if model is None:
            top[name] = _setting("", Policy, name, field)
        else:
            listed = [_setting(name, model, *item) for item in model.model_fields.items()]
            settings = {setting.key: setting for setting in listed}
            repeated = field.annotation is not model
            named[name] = SectionInfo(name, repeated, _docstring(model), settings)
    return {"": SectionInfo("", False, "Settings before the first section.", top), **named}


def setting_at(path: Sequence[str | int]) -> Setting | None:
    """The setting at a path such as `("rules", 1, "senders", 0)`; None if there is none."""
    names = [name for name in path if isinstance(name, str)]
    section, key = ("", *names) if len(names) == 1 else (*names, "", "")[:2]
    return all_sections()[section].settings.get(key) if section in all_sections() else None


def written(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {written(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, timedelta):
        value = duration_text(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _section(annotation: object) -> type[Section] | None:
    """The section that a field of Policy holds, itself or in a tuple."""
    candidates = (annotation, *get_args(annotation))
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)), None)


def _setting(section: str, model: type[Section], name: str, field: FieldInfo) -> Setting:
    key = field.alias or name
    schema = _json_schema()
    shape = (schema if model is Policy else schema["$defs"][model.__name__])["properties"][key]
    required = field.is_required()
    default = None if required else field.default
    example = field.examples[0] if field.examples and default is None else default
    return Setting(
        key=key,
        kind=_kind(shape),
        choices=_choices(shape),
        required=required,
        default=default,
        example=written(example),
        description=field.description or "",
        used=not {section, f"{section}.{key}"}.intersection(NOT_USED_YET),
    )


@cache
def _json_schema() -> dict[str, Any]:
    return Policy.model_json_schema(by_alias=True)


def _resolved(shape: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in shape and "enum" not in shape:  # a setting may allow fewer choices than its type
        definition: Mapping[str, Any] = _json_schema()["$defs"][shape["$ref"].rpartition("/")[2]]
        return definition
    if "anyOf" in shape:
        return _resolved(next(choice for choice in shape["anyOf"] if choice.get("type") != "null"))
    return shape


def _choices(shape: Mapping[str, Any]) -> tuple[str, ...]:
    shape = _resolved(shape)
    return tuple(_resolved(shape.get("items", shape)).get("enum", ()))


def _kind(shape: Mapping[str, Any]) -> str:
    shape = _resolved(shape)
    if shape.get("type") == "array":
        return f"a list of {_kind(shape['items']).replace('text', 'texts')}"
    if choices := _choices(shape):
        return any_of(choices)
    if shape.get("type") == "integer":
        low, high = shape.get("minimum"), shape.get("maximum")
        if high is None:
            return f"a whole number from {low}"
        return f"a whole number from {low} to {high}"
    return "true or false" if shape.get("type") == "boolean" else "text"


def any_of(choices: Sequence[str]) -> str:
    """A choice of texts in words, each in quotes."""
    *most, last = map(written, choices)
    return f"{', '.join(most)} or {last}" if most else last


def _docstring(model: type[Section]) -> str:
    return " ".join((model.__doc__ or "").split())
