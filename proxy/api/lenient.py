"""Decode JSON into typed structs, field by field where it must be.

How it works: msgspec decodes the bytes into the struct, which is all that happens for JSON that is valid
and of the expected types. If that fails, the members of the object are found by :mod:`proxy.api.scan` and
each field is converted from its raw bytes by itself; what cannot be converted keeps its default and is
reported by name. One odd field never voids the others.

Conversions follow what servers and clients are seen to send:

- an integer: ``7``, ``7.0``, ``"7"``; not ``7.5``, ``NaN``, ``true``;
- a text: also a number, as its digits; bytes that are no UTF-8 and unpaired surrogates become U+FFFD;
- a truth value: also ``"true"``, ``1``;
- ``null`` is an absent field; a field given twice has its last value;
- a list: items that cannot be converted are left out.

A byte order mark, ``NaN``, ``Infinity``, control characters in strings, any depth of nesting and a document
that was cut off do not matter for fields that can be read.
"""

import json
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec

from proxy.api.scan import items, members

T = TypeVar("T", bound=msgspec.Struct)

WHOLE_BODY: Final = "body"  # the name reported for a document that is no JSON object at all

_NUMBER: Final = re.compile(rb"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_MAX_DIGITS: Final = 40  # no count has more; converting thousands of digits is slow
_TRUE: Final = frozenset((b"true", b"1", b"1.0", b"t", b"yes", b"y", b"on"))  # as pydantic's lax mode
_FALSE: Final = frozenset((b"false", b"0", b"0.0", b"f", b"no", b"n", b"off"))
_NULL: Final = b"null"

Convert = Callable[[bytes, str, list[str]], object]  # raw value, name of the field, where to report names


class UnreadableError(ValueError):
    """A value that cannot be converted into the type of its field."""


class LenientDecoder(Generic[T]):
    """Decode objects into one type of struct; all fields of the struct must have defaults.

    Fields may be ``str``, ``int``, ``float``, ``bool``, ``msgspec.Raw``, another struct, ``list`` of these,
    and unions.
    """

    def __init__(self, type_: type[T]) -> None:
        self._type = type_
        self._fast = msgspec.json.Decoder(type_)
        self._convert = _struct_converter(type_)

    def decode(self, data: bytes, unread: list[str]) -> T | None:
        """Return the struct of a JSON object, with defaults for what cannot be read; None if it is no object.

        Names of fields that are present but cannot be read are appended to ``unread``, dotted and without
        indices (``choices.delta.content``), so that there is a bounded number of them. ``null`` is nothing to
        read and is not reported.
        """
        try:
            return self._fast.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        found = members(data)
        if found is None:
            if data.strip() not in {b"", _NULL}:
                unread.append(WHOLE_BODY)
            return None
        return self.from_members(found, unread)

    def from_members(self, found: dict[bytes, bytes], unread: list[str]) -> T:
        """Return the struct of an object's members, given as raw values by name."""
        return self._type(**_fields(self._convert, found, "", unread))


def text_of(raw: bytes) -> str:
    """Return the text of a JSON string or number; raises :class:`UnreadableError` for other values."""
    if raw.startswith(b'"'):
        try:
            return msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            text = json.loads(raw.decode("utf-8", "replace"), strict=False)
        except ValueError as error:
            raise UnreadableError(str(error)) from error
        if isinstance(text, str):
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    elif len(raw) <= _MAX_DIGITS and _NUMBER.fullmatch(raw):
        return raw.decode()
    raise UnreadableError("not a text")


def number_of(raw: bytes) -> float:
    """Return a finite number, also of a string that holds one; raises :class:`UnreadableError`.

    The result is an ``int`` where the number is integral.
    """
    digits = raw.strip(b'" ') if raw.startswith(b'"') else raw
    if len(digits) > _MAX_DIGITS or not _NUMBER.fullmatch(digits):
        raise UnreadableError("not a number")
    if digits.lstrip(b"+-").isdigit():
        return int(digits)
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise UnreadableError("not a finite number")
    return int(number) if number.is_integer() else number


def integer_of(raw: bytes) -> int:
    """Return a number without a fraction, also of a string; raises :class:`UnreadableError`."""
    number = number_of(raw)
    if not isinstance(number, int):
        raise UnreadableError("not an integer")
    return number


def truth_of(raw: bytes) -> bool:
    """Return a truth value, also of ``"true"`` or 1; raises :class:`UnreadableError`."""
    word = raw.strip(b'"').lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise UnreadableError("not a truth value")


def _fields(
    converters: dict[bytes, tuple[str, Convert]], found: dict[bytes, bytes], prefix: str, unread: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, (name, convert) in converters.items():
        raw = found.get(key)
        if raw is None or raw == _NULL:
            continue
        try:
            values[name] = convert(raw, prefix + name, unread)
        except UnreadableError:
            unread.append(prefix + name)
    return values


def _struct_converter(type_: type[msgspec.Struct]) -> dict[bytes, tuple[str, Convert]]:
    return {
        field.encode_name.encode(): (field.name, _converter(field.type))
        for field in msgspec.structs.fields(type_)
    }


def _converter(type_: Any) -> Convert:
    """Return the function that converts raw values into a type."""
    origin = get_origin(type_)
    if origin is Annotated:
        return _converter(get_args(type_)[0])
    if origin in {Union, types.UnionType}:
        return _first_of([_converter(each) for each in get_args(type_) if each is not types.NoneType])
    if origin is list:
        return _list_converter(_converter(get_args(type_)[0]))
    if type_ is msgspec.Raw:
        return lambda raw, _name, _unread: msgspec.Raw(raw)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _nested(type_)
    convert = _SCALARS[type_]
    return lambda raw, _name, _unread: convert(raw)


_SCALARS: Final[dict[type, Callable[[bytes], object]]] = {
    str: text_of,
    bool: truth_of,
    int: integer_of,
    float: number_of,
}


def _first_of(converters: list[Convert]) -> Convert:
    if len(converters) == 1:
        return converters[0]

    def convert(raw: bytes, name: str, unread: list[str]) -> object:
        for each in converters:
            try:
                return each(raw, name, unread)
            except UnreadableError:
                continue
        raise UnreadableError("of none of the types")

    return convert


def _list_converter(convert: Convert) -> Convert:
    def convert_items(raw: bytes, name: str, unread: list[str]) -> object:
        found = items(raw)
        if found is None:
            raise UnreadableError("not a list")
        values = []
        for item in found:
            if item == _NULL:
                continue
            try:
                values.append(convert(item, name, unread))
            except UnreadableError:
                unread.append(name)
        return values

    return convert_items


def _nested(type_: type[msgspec.Struct]) -> Convert:
    converters = _struct_converter(type_)

    def convert(raw: bytes, name: str, unread: list[str]) -> object:
        found = members(raw)
        if found is None:
            raise UnreadableError("not an object")
        return type_(**_fields(converters, found, f"{name}.", unread))

    return convert
