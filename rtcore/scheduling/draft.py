"""A record of many fields that is made anew at every tick: its fields are set by name, one after the other.

Calling a NamedTuple of 29 fields by keyword takes 5 us, as each name is looked for among all. To set as many attributes
and take them together takes 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple


def draft_of(kind: type[NamedTuple]) -> Any:
    """An object with the fields of `kind` as attributes, which begin as its defaults.

    Its `record()` is a `kind` of what they are at that moment; iterated over it gives their values. Setting a name that
    is no field raises AttributeError.
    """
    fields, values, new = kind._fields, attrgetter(*kind._fields), tuple.__new__

    class Draft:
        __slots__ = fields

        def __iter__(self) -> Iterator[Any]:
            return iter(values(self))

        def record(self) -> NamedTuple:
            return new(kind, values(self))

    draft = Draft()
    for name in fields:
        setattr(draft, name, kind._field_defaults.get(name))
    return draft
