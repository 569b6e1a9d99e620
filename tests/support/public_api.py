"""The public interface as text, made to be compared: names, signatures, bases, and the command line's options.

It goes in by the public names alone and says nothing of where a thing is defined, so that what moves inside the package
does not show. What a class has from a base class that is not public counts as its own. Values that would depend on the
machine or on the version of Python have no place in it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

import prominence_executor
import prominence_executor.errors
import prominence_executor.integrations.joblib
import prominence_executor.local
import prominence_executor.runs
from prominence_executor import cli

PACKAGE = prominence_executor.__name__
MODULES = (
    prominence_executor,
    prominence_executor.integrations.joblib,
    prominence_executor.local,
    prominence_executor.runs,
)
# What a class can do with the language; other special methods are no names that a user writes.
_SPECIAL = frozenset({"__call__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__", "__next__"})


def interface() -> str:
    """All of it, one thing after the other, in the order of their names."""
    parts = [
        *(_module(module) for module in MODULES),
        _title(prominence_executor.errors.__name__, "the same classes as in the package"),
        "\n".join(sorted(prominence_executor.errors.__all__)) + "\n",
        _title("without a public name, but returned by what has one"),
        *(_class(name, cls, constructor=_is_record(cls)) for name, cls in sorted(_returned().items())),
        _title("command line"),
        *(_command(parser) for _, parser in sorted(_parsers().items())),
    ]
    return "\n".join(parts)


def _title(*words: str) -> str:
    return "=== " + ": ".join(words) + " ===\n"


def _module(module: ModuleType) -> str:
    described = [_title(module.__name__)]
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value):
            described.append(_class(name, value))
        elif callable(value):
            described.append(f"def {name}{_signature(value)}\n")
        else:
            described.append(f"{name}: {type(value).__name__}\n")
    return "\n".join(described)


# -- classes -----------------------------------------------------------------------------------------------------------


def _class(name: str, cls: type, *, constructor: bool = True) -> str:
    bases = ", ".join(_bases(cls))
    lines = [f"class {name}({bases})" if bases else f"class {name}", *(_constructor(cls) if constructor else ())]
    lines += sorted(_attributes(cls))
    for member, value in sorted(_members(cls).items()):
        lines += _member(member, value)
    return "\n    ".join(lines) + "\n"


def _own(cls: type) -> list[type]:
    """The class, and those of its bases that a user has no name for, unless they belong to one that has."""
    inherited = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] == PACKAGE]
    public = [base for base in inherited if base in _public()]
    return [cls, *(base for base in inherited if not any(issubclass(other, base) for other in public))]


def _bases(cls: type) -> list[str]:
    found: dict[str, None] = {}
    for part in _own(cls):
        for base in part.__bases__:
            if base not in _own(cls) and base is not object:
                found[_name_of(base)] = None
    return list(found)


def _name_of(cls: type) -> str:
    """Its public name; of another library, without the modules that are private there."""
    if cls in _public():
        return cls.__name__
    where = [part for part in cls.__module__.split(".") if not part.startswith("_") and part != "builtins"]
    return ".".join([*where, cls.__qualname__])


@cache
def _public() -> frozenset[type]:
    values = (getattr(module, name) for module in MODULES for name in module.__all__)
    return frozenset(value for value in values if inspect.isclass(value))


def _members(cls: type) -> dict[str, Any]:
    """Methods and properties, as they stand in the class."""
    found: dict[str, Any] = {}
    for part in reversed(_own(cls)):
        for name, value in vars(part).items():
            kinds = (classmethod, staticmethod, property)
            if (not name.startswith("_") or name in _SPECIAL) and (
                inspect.isfunction(value) or isinstance(value, kinds)
            ):
                found[name] = value
    return found


def _member(name: str, value: Any) -> list[str]:
    if isinstance(value, property):
        returns = _annotation(inspect.signature(value.fget).return_annotation) if value.fget else "None"
        return [f"{name}: {returns}  # property" + (", can be set" if value.fset else "")]
    kind = f"  # {type(value).__name__}" if isinstance(value, (classmethod, staticmethod)) else ""
    function = value.__func__ if kind else value
    signature = _signature(function, bound=not isinstance(value, staticmethod))
    return _lines(f"def {name}{signature}{kind}")


def _constructor(cls: type) -> list[str]:
    """None of its own: that of its first base."""
    if hasattr(cls, "_fields"):  # a NamedTuple, whose signature differs between versions of Python
        return _lines(f"({', '.join(f'{name}: {_annotation(cls.__annotations__[name])}' for name in cls._fields)})")
    for part in _own(cls):
        for method in ("__init__", "__new__"):
            if inspect.isfunction(function := vars(part).get(method)):
                return _lines(_signature(function, bound=True, returns=False))
    return []


def _attributes(cls: type) -> set[str]:
    """What its methods assign to ``self``, and what it declares; fields of a record stand in its constructor."""
    found: set[str] = set()
    for part in _own(cls):
        found |= set(inspect.get_annotations(part))
        for function in filter(inspect.isfunction, vars(part).values()):
            with contextlib.suppress(OSError):  # a dataclass has made it
                tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
                found |= {name for node in ast.walk(tree) if (name := _assigned(node))}
    return {name for name in found if not name.startswith("_")} - set(_members(cls)) - _fields(cls)


def _assigned(node: ast.AST) -> str | None:
    """The attribute of ``self`` that this assigns to."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return None
    return node.attr if isinstance(node.value, ast.Name) and node.value.id == "self" else None


def _fields(cls: type) -> set[str]:
    """Of a dataclass or a NamedTuple: what its constructor takes anyway."""
    return {*getattr(cls, "__dataclass_fields__", ()), *getattr(cls, "_fields", ())}


def _is_record(cls: type) -> bool:
    return bool(_fields(cls))


# -- signatures --------------------------------------------------------------------------------------------------------


def _signature(function: Callable[..., Any], *, bound: bool = False, returns: bool = True) -> str:
    """As it would be written; one parameter a line where it would be long."""
    signature = inspect.signature(function)
    words: list[str] = []
    star = False
    for parameter in list(signature.parameters.values())[bound:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        words.append(_parameter(parameter))
    returns = returns and signature.return_annotation is not signature.empty
    annotation = f" -> {_annotation(signature.return_annotation)}" if returns else ""
    whole = f"({', '.join(words)}){annotation}"
    if len(whole) <= 100:
        return whole
    return "(\n" + "".join(f"    {word},\n" for word in words) + f"){annotation}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    return text if parameter.default is parameter.empty else f"{text} = {_default(parameter.default)}"


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if hasattr(annotation, "__forward_arg__"):
        return str(annotation.__forward_arg__)
    return inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    return value.__qualname__ if inspect.isfunction(value) or inspect.isclass(value) else repr(value)


def _lines(text: str) -> list[str]:
    return text.split("\n")


# -- what is returned --------------------------------------------------------------------------------------------------


def _returned() -> dict[str, type]:
    """The classes of the package that public methods return, and theirs, which have no public name themselves."""
    found: dict[str, type] = {}
    waiting = list(_public())
    while waiting:
        for function in _methods(waiting.pop()):
            for name in re.findall(r"[A-Za-z_]\w*", _annotation(inspect.signature(function).return_annotation)):
                cls = _in_the_package(name, function)
                if cls is not None and cls not in _public() and name not in found:
                    found[name] = cls
                    waiting.append(cls)
    return found


def _methods(cls: type) -> Iterator[Callable[..., Any]]:
    for value in _members(cls).values():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if function is not None:
            yield function


def _in_the_package(name: str, function: Callable[..., Any]) -> type | None:
    """The class that a function calls so; one that it knows only for checking types is looked for everywhere."""
    value = inspect.unwrap(function).__globals__.get(name)
    if value is None:
        modules = [vars(module) for key, module in sys.modules.items() if key.partition(".")[0] == PACKAGE]
        values = {id(value): value for module in modules if (value := module.get(name)) is not None}
        assert len(values) <= 1, f"several things are called {name}: {list(values.values())}"
        value = next(iter(values.values()), None)
    return value if inspect.isclass(value) and value.__module__.partition(".")[0] == PACKAGE else None


# -- the command line --------------------------------------------------------------------------------------------------


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Every parser that takes part in the command or one of its sub-commands, by the words that lead to it."""
    found: dict[str, argparse.ArgumentParser] = {}
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        for parser in _taking_part([*words, "--help"]):
            if parser.prog not in found or len(parser._actions) > len(found[parser.prog]._actions):
                found[parser.prog] = parser
            if parser.prog.split()[1:] == words:
                waiting += [[*words, command] for command in _commands(parser)]
    return found


def _taking_part(arguments: list[str]) -> list[argparse.ArgumentParser]:
    """The parsers that are asked when the command runs with these arguments, whose last one is --help."""
    seen: list[argparse.ArgumentParser] = []
    original = argparse.ArgumentParser.parse_known_args

    def noting(self: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        seen.append(self)
        return original(self, *given, **named)

    others = {name: value for name, value in os.environ.items() if not name.startswith("PROMINENCE_")}
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", noting),
        mock.patch.dict(os.environ, others, clear=True),  # some defaults come from variables
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        cli.main(arguments)
    return seen


def _commands(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions if isinstance(action.choices, dict) for name in action.choices]


def _command(parser: argparse.ArgumentParser) -> str:
    lines = [parser.prog, *textwrap.wrap(parser.description or "", 100)]
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            lines += [_option(action), *(f"    {line}" for line in textwrap.wrap(action.help or "", 100))]
    return "\n    ".join(lines) + "\n"


def _option(action: argparse.Action) -> str:
    """How it is written, and what it is without it."""
    shown = action.metavar or action.dest.upper() if action.nargs != 0 else ""
    words = [" ".join(filter(None, [", ".join(action.option_strings), str(shown)]))]
    words += [f"one of {', '.join(map(str, action.choices))}"] if action.choices else []
    words += [f"{action.nargs!r} times"] if action.nargs not in (None, 0, argparse.PARSER) else []
    words += ["repeatable"] if isinstance(action, argparse._AppendAction) else []
    words += [f"type {action.type.__name__}"] if isinstance(action.type, type) else []
    has_default = action.nargs != 0 and action.default != argparse.SUPPRESS
    words += ["required"] if action.required else [f"default {action.default!r}"] if has_default else []
    return "; ".join(words)
