"""A factory's parameters: the values that replace `$name` in a description."""

from __future__ import annotations

from string import Template
from typing import Any


def as_texts(parameters: dict[str, Any] | None) -> dict[str, str]:
    """Return the values of one instance as they are substituted."""
    return {name: str(value) for name, value in (parameters or {}).items()}


def references(text: str) -> set[str]:
    """Return the names that `substituted` would replace."""
    found = Template.pattern.finditer(text)
    return {name for match in found if (name := match["named"] or match["braced"]) is not None}


def substituted(text: str, values: dict[str, str]) -> str:
    """Replace `$name`, `${name}` and `$$` as the service's worker does; names that it does not know stay."""
    return Template(text).safe_substitute(values)
