"""The one path that overrides a config: the command line, the sweeps and the search spaces all call it."""

import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal

from bbqrec.errors import InputError, suggestion


def from_json(cls: type, value: dict[str, Any]) -> Any:
    """The inverse of `to_json`; an unknown field raises InputError."""
    return with_overrides(cls(**_required(cls, value)), _flatten(value))


def _required(cls: type, value: dict[str, Any]) -> dict[str, Any]:
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [f.name for f in dataclasses.fields(cls) if (f.default, f.default_factory) == missing]
    absent = [name for name in needed if name not in value]
    if absent:
        raise InputError(f"{cls.__name__} without {', '.join(absent)}", "give a config.json that the program wrote")
    return {name: value[name] for name in needed}


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat


def with_overrides(config: Any, overrides: dict[str, Any]) -> Any:
    """`config` with dotted fields replaced, e.g. {"quantizer.levels": 4}; strings are parsed to the field's type.

    Raises InputError naming class, field and value: a misspelt name, a wrong type, a value that the config refuses.
    """
    nested: dict[str, dict[str, Any]] = {}
    direct: dict[str, Any] = {}
    types_of = typing.get_type_hints(type(config))
    hints = {field.name: types_of[field.name] for field in dataclasses.fields(config)}
    for path, value in overrides.items():
        name, _, rest = path.partition(".")
        if name not in hints:
            what = f"{type(config).__name__} has no field {name!r} (override {path}={value!r})"
            raise InputError(what, suggestion(name, hints))
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            direct[name] = _convert(type(config).__name__, name, hints[name], value)
    for name, inner in nested.items():
        if not dataclasses.is_dataclass(getattr(config, name)):
            raise InputError(
                f"{type(config).__name__}.{name} has no fields (override {name}.{next(iter(inner))})",
                f"set {name} itself",
            )
        direct[name] = with_overrides(getattr(config, name), inner)
    try:
        return dataclasses.replace(config, **direct)
    except ValueError as error:
        raise InputError(f"{type(config).__name__} refuses {overrides}", str(error)) from error


def _convert(owner: str, name: str, hint: Any, value: Any) -> Any:
    remedy = f"give a value of type {getattr(hint, '__name__', hint)}"
    wrong = InputError(f"{owner}.{name}={value!r} is not valid", remedy)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{owner}.{name}={value!r} is not valid", f"use one of {', '.join(typing.get_args(hint))}")
        return value
    if typing.get_origin(hint) is tuple:
        parts = [p for p in value.split(",") if p] if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not all(isinstance(p, str) for p in parts):
            raise wrong
        return tuple(parts)
    if isinstance(hint, types.UnionType) or not isinstance(hint, type):
        raise TypeError(f"{owner}.{name}: fields of type {hint} cannot be overridden")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{owner}.{name}={value!r} is not valid", "give a finite number")
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            parsed = json.loads(value.lower() if hint is bool else value)
        except json.JSONDecodeError:
            raise wrong from None
        if not isinstance(parsed, str):
            return _convert(owner, name, hint, parsed)
    raise wrong
