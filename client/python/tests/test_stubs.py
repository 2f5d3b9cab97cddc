"""The stubs of the extension name what the extension exports, and nothing else.

The one thing to know: the type checker believes the stubs; this is what keeps them true. This file must
not test what the extension does.
"""

import ast
import importlib.util
import inspect
from pathlib import Path

import raylet._native as native

STUBS = Path(importlib.util.find_spec("raylet").origin).with_name("_native.pyi")


def members(body):
    """The names that a body of stubs defines, special ones left out."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, ast.AnnAssign):
            yield statement.target.id


def public(names):
    return {name for name in names if not name.startswith("_")}


def stubs():
    return ast.parse(STUBS.read_text())


def test_every_function_and_class_has_a_stub():
    # What a context manager gives has a name of its own, that nobody needs.
    unnamed = {"ProfileEvent"}
    assert public(members(stubs().body)) - unnamed == public(dir(native))


def test_every_method_has_a_stub():
    described = {one.name: one for one in stubs().body if isinstance(one, ast.ClassDef)}
    for name, found in inspect.getmembers(native, inspect.isclass):
        if not name.startswith("_"):
            assert public(members(described[name].body)) == public(vars(found)), name


def test_functions_take_what_their_stubs_say():
    described = {one.name: one for one in stubs().body if isinstance(one, ast.FunctionDef)}
    for name in public(described):
        arguments = described[name].args
        said = [argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]]
        assert said == list(inspect.signature(getattr(native, name)).parameters), name


def test_the_package_is_typed():
    assert STUBS.with_name("py.typed").exists()
