"""Dataclasses to JSON objects and back: the one place that checks what a file, a worker or a peer has written.

A field that the dataclass does not know is ignored, so that a later minor version may add fields. A field that the JSON
object lacks takes its default; without a default it is an error. A dataclass whose JSON form differs from its fields
provides `to_json` and the class method `from_json`.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_Record = TypeVar("_Record")
_Decoder = Callable[[object, str], Any]
"""Returns what a record holds for a JSON value; its other argument names the field. Raises FieldError."""
_MAX_FIGURE = 1e300
_NAMES = {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}


class FieldError(ValueError):
    """A JSON value does not fit the field it is meant for; the message names the field."""


def encode(record: Any) -> dict[str, object]:
    """The JSON object of a dataclass, nested dataclasses included."""
    if hasattr(record, "to_json"):
        return dict(record.to_json())
    return encode_fields(record)


def encode_fields(record: Any) -> dict[str, object]:
    """As `encode`, for the use of a `to_json` method: one JSON member for each field."""
    return {field.name: _encoded(getattr(record, field.name)) for field in fields(record)}


def decode(kind: type[_Record], value: object, name: str = "") -> _Record:
    """The dataclass `kind` from a parsed JSON object. `name` is put in front of field names in errors.

    Raises FieldError.
    """
    if not isinstance(value, Mapping):
        raise FieldError(f"{name or kind.__name__} is not an object")
    custom: Callable[[Mapping[str, object]], _Record] | None = getattr(kind, "from_json", None)
    if custom is None:
        return decode_fields(kind, value, name)
    try:
        return custom(value)
    except FieldError as error:
        raise FieldError(f"{name}.{error}" if name else str(error)) from None


def decode_fields(kind: type[_Record], value: Mapping[str, object], name: str = "") -> _Record:
    """As `decode`, for the use of a `from_json` method: one field for each JSON member."""
    arguments = {}
    for field, decoder in _field_decoders(kind):  # type: ignore[arg-type]
        full_name = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            arguments[field.name] = decoder(value[field.name], full_name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise FieldError(f"{full_name} is missing")
    return kind(**arguments)


@cache
def _field_decoders(kind: type[Any]) -> list[tuple[Field[Any], _Decoder]]:
    hints = get_type_hints(kind)
    return [(field, _decoder(hints[field.name])) for field in fields(kind)]


def _encoded(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, Mapping):
        return {key: _encoded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(each) for each in value]
    return value


@cache
def _decoder(hint: Any) -> _Decoder:
    """What checks and converts a value of this type. A type is examined once, not for each of a million values."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        choices = [_decoder(each) for each in arguments if each is not type(None)]
        return partial(_decoded_union, choices, type(None) in arguments)
    if origin is Sequence:
        return partial(_decoded_list, _decoder(arguments[0]))
    if origin is Mapping:
        return partial(_decoded_mapping, _decoder(arguments[1]))
    if is_dataclass(hint):
        return partial(decode, hint)  # type: ignore[arg-type]
    return partial(_decoded_scalar, hint) if hint in _NAMES else _unchanged


def _decoded_union(choices: Sequence[_Decoder], is_optional: bool, value: object, name: str) -> Any:
    if value is None and is_optional:
        return None
    errors = []
    for choice in choices:
        try:
            return choice(value, name)
        except FieldError as error:
            errors.append(error)
    raise errors[0]


def _decoded_list(element: _Decoder, value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError(f"{name} is not a list")
    return [element(each, name) for each in value]


def _decoded_mapping(member: _Decoder, value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise FieldError(f"{name} is not an object")
    return {str(key): member(each, f"{name}.{key}") for key, each in value.items()}


def _decoded_scalar(kind: type, value: object, name: str) -> Any:
    if not _fits(kind, value):
        raise FieldError(f"{name} is not {_NAMES[kind]}")
    return value


def _unchanged(value: object, _name: str) -> Any:
    return value


def _fits(kind: type, value: object) -> bool:
    """Whether the value is of that kind. A bool is not a number; NaN, infinities and absurdly large integers fail."""
    if kind in (int, float):
        accepted = (int,) if kind is int else (int, float)
        return isinstance(value, accepted) and not isinstance(value, bool) and abs(value) < _MAX_FIGURE
    return type(value) is kind
