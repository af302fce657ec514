"""What the schema says of itself: every setting with its kind, default and description, and how a value is written.

The reference page, `check-config` and the errors of `config.py` read it here, so that each setting is described once.
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
    """What it takes, in words: `text`, `a whole number from 1 to 64`, `a list of texts`, `"json" or "console"`."""
    choices: tuple[str, ...]
    """The texts that it takes, where only some will do (for a list: the texts that may be in it)."""
    required: bool
    default: object
    """None where it is required, or where leaving it out means that it does not apply."""
    example: str
    """A value as the file writes it: the default, or an example where there is none."""
    description: str
    used: bool
    """Whether anything acts on it in this version."""


class Part(NamedTuple):
    """A section of the configuration. `name` is empty for the settings at the top."""

    name: str
    repeated: bool
    """Whether it is written `[[name]]`, any number of times."""
    description: str
    settings: Mapping[str, Setting]


@cache
def parts() -> Mapping[str, Part]:
    """The sections by name, in the order of the schema; the settings at the top come first."""
    top, sections = {}, {}
    for name, field in Policy.model_fields.items():
        model = _section(field.annotation)
        if model is None:
            top[name] = _setting("", Policy, name, field)
        else:
            settings = {one.key: one for one in (_setting(name, model, *item) for item in model.model_fields.items())}
            repeated = field.annotation is not model
            sections[name] = Part(name, repeated, _docstring(model), settings)
    return {"": Part("", False, "Settings that stand before the first section.", top), **sections}


def setting_at(path: Sequence[str | int]) -> Setting | None:
    """The setting that a path such as `("rules", 1, "senders", 0)` leads to; None where it leads to none."""
    names = [name for name in path if isinstance(name, str)]
    section, key = ("", *names) if len(names) == 1 else (*names, "", "")[:2]
    return parts()[section].settings.get(key) if section in parts() else None


def written(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, timedelta):
        value = duration_text(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _section(annotation: object) -> type[Section] | None:
    """The section that a field of Policy holds, itself or in a tuple."""
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None)


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
    if "$ref" in shape and "enum" not in shape:  # a setting may narrow what its type has to choose from
        definition: Mapping[str, Any] = _json_schema()["$defs"][shape["$ref"].rpartition("/")[2]]
        return definition
    if "anyOf" in shape:
        return _resolved(next(one for one in shape["anyOf"] if one.get("type") != "null"))
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
    """Texts to choose from, in quotes and words."""
    *most, last = map(written, choices)
    return f"{', '.join(most)} or {last}" if most else last


def _docstring(model: type[Section]) -> str:
    return " ".join((model.__doc__ or "").split())
