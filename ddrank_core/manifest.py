"""Reads from a plugin's source what it brings, so that nothing of it has to be imported.

That works where hooks are plain functions of the module that the entry point names, and where a
registration hook does nothing but return a list of `ComponentSpec(...)` with literal arguments.
Anything else is computed, and only an import tells.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from typing import Any

import attrs

from ddrank_core import hookspecs
from ddrank_core.errors import PluginError, nearest, one_line
from ddrank_core.hookspecs import ENTRY_POINT_GROUP, PROJECT
from ddrank_core.spec import HOOKS, ComponentSpec

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hookspecs).items()
    if name.startswith(f"{PROJECT}_")
}
"""Hook -> the arguments that it is called with."""

LIFECYCLE = frozenset(ARGUMENTS) - frozenset(HOOKS.values())
"""The hooks that are called in a run, with an event."""

_HOOKIMPL = ("ddrank_core.hookimpl", "ddrank_core.hookspecs.hookimpl")
_COMPONENT_SPEC = ("ddrank_core.ComponentSpec", "ddrank_core.spec.ComponentSpec")


@attrs.frozen
class Manifest:
    """What a plugin implements and brings; None for what only an import tells."""

    hooks: tuple[str, ...] | None
    components: Mapping[str, tuple[ComponentSpec, ...]] | None
    """Registration hook -> what it returns."""

    @property
    def may_listen(self) -> bool:
        return self.hooks is None or not LIFECYCLE.isdisjoint(self.hooks)


UNREADABLE = Manifest(hooks=None, components=None)


class _Computed(Exception):
    """Something that only an import tells."""


def read(value: str) -> Manifest:
    """Return what the plugin says of itself that an entry point's value, `module` or `module:object`, names.

    Raises:
        PluginError: what is wrong with it for certain; whose it is stands in the `Fault`.
    """
    module, _, attribute = value.partition("[")[0].replace(" ", "").partition(":")
    tree = _parsed(module)
    if tree is None:
        return UNREADABLE
    if attribute:
        if not _may_have(tree, attribute.partition(".")[0]):
            raise PluginError(f"{module} has no '{attribute}'")
        return UNREADABLE
    try:
        return _Module(tree).manifest()
    except _Computed:
        return UNREADABLE


def target_fault(target: str) -> str | None:
    """Return why nothing can be at a target `module:Class`; None where no source tells."""
    module, _, attribute = target.partition(":")
    try:
        tree = _parsed(module)
    except PluginError as error:
        return str(error)
    return None if tree is None or _may_have(tree, attribute) else f"{module} has no '{attribute}'"


# -- finding a module --------------------------------------------------------------------------


def _parsed(module: str) -> ast.Module | None:
    """Return a module's syntax tree; None where only an import tells what it holds.

    Raises:
        PluginError: if there is no such module, or Python cannot read it.
    """
    spec = _located(module)
    if spec is None:
        return None
    try:
        source = _source(spec)
        if source is None:
            return None
        with warnings.catch_warnings():
            # Python says these when it compiles a module, which is once; here they would come every time.
            warnings.simplefilter("ignore")
            return ast.parse(source, spec.origin or module)
    except (ImportError, SyntaxError, ValueError) as error:
        raise PluginError(f"{module} cannot be imported: {one_line(error)}") from error


def _located(module: str) -> ModuleSpec | None:
    """Return where a module is, without importing its parents; None where only an import tells."""
    name, *rest = module.split(".")
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        # A module that was made at run time, as `__main__` is, or a finder that fails.
        return None
    for part in rest:
        folders = None if spec is None else spec.submodule_search_locations
        if spec is None or folders is None:
            raise PluginError(f"there is no module '{module}'")
        parent, name = spec, f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(folders))
        if spec is None and "__path__" in (_source(parent) or ""):
            return None
    if spec is None:
        raise PluginError(f"there is no module '{module}'")
    return spec


def _source(spec: ModuleSpec) -> str | None:
    get_source = getattr(spec.loader, "get_source", None)
    source: str | None = None if get_source is None else get_source(spec.name)
    return source


_DYNAMIC = frozenset({"exec", "globals", "setattr", "vars"})
"""What can bind a name that stands nowhere in the source."""


def _may_have(tree: ast.Module, name: str) -> bool:
    """Return whether a module may have an attribute: no is certain, yes is not."""
    if not {name, "*", "__getattr__"}.isdisjoint(_bound(tree)):
        return True
    return any(isinstance(node, ast.Name) and node.id in _DYNAMIC for node in ast.walk(tree))


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a module's own statements bind, `*` for all of another module."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
        yield from _bound(child)


# -- reading a manifest ------------------------------------------------------------------------


class _Module:
    """The syntax tree of a plugin's module."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._imported = dict(_imported_names(tree))

    def manifest(self) -> Manifest:
        """Return what the module says.

        Raises:
            PluginError: what is wrong with it for certain.
            _Computed: if only an import tells which hooks it implements.
        """
        hooks: dict[str, ast.FunctionDef] = {}
        unmarked = False
        for statement in self._tree.body:
            if not isinstance(statement, ast.FunctionDef):
                self._check_hides_no_hook(statement)
            elif hook := self._hook(statement):
                if hook in hooks:
                    raise _Computed
                hooks[hook] = statement
            else:
                unmarked = unmarked or statement.name in ARGUMENTS
        if hooks:
            return Manifest(tuple(hooks), self._components(hooks))
        if unmarked:
            raise PluginError("it implements no hook; mark its functions with @ddrank_core.hookimpl")
        raise _Computed

    def _components(
        self, hooks: Mapping[str, ast.FunctionDef]
    ) -> Mapping[str, tuple[ComponentSpec, ...]] | None:
        try:
            return {
                hook: self._listing(hook, function)
                for hook, function in hooks.items()
                if hook not in LIFECYCLE
            }
        except _Computed:
            return None

    # -- hooks -------------------------------------------------------------------------------

    def _hook(self, function: ast.FunctionDef) -> str | None:
        """Return the hook that a function implements, or None; check its arguments."""
        options = self._options(function)
        if options is None:
            return None
        hook = str(options.get("specname") or function.name)
        if hook not in ARGUMENTS:
            if options.get("optionalhook"):
                return None
            hint = nearest(hook, list(ARGUMENTS))
            raise PluginError(f"it implements {hook}, which is not a hook of {ENTRY_POINT_GROUP}{hint}")
        _check_arguments(hook, function.args)
        return hook

    def _options(self, function: ast.FunctionDef) -> dict[str | None, Any] | None:
        """Return what a function is marked with by `@hookimpl`; None if it is not marked."""
        names = [self._name(decorator) for decorator in function.decorator_list]
        if not any(name in _HOOKIMPL for name in names):
            if names and function.name.startswith(f"{PROJECT}_"):
                raise _Computed
            if any(name.rpartition(".")[2] == "hookimpl" for name in names):
                # A marker from elsewhere, such as a module of the plugin's own that passes ours on.
                raise _Computed
            return None
        if len(names) > 1:
            raise _Computed
        (decorator,) = function.decorator_list
        keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
        options = {keyword.arg: _literal(keyword.value) for keyword in keywords}
        if options.get("wrapper") or options.get("hookwrapper"):
            raise _Computed
        return options

    def _check_hides_no_hook(self, statement: ast.stmt) -> None:
        """Refuse to read a module with a hook that is not a plain function of its own."""
        if isinstance(statement, ast.ClassDef) or _is_for_types(statement):
            return
        prefix = f"{PROJECT}_"
        for node in ast.walk(statement):
            match node:
                case ast.ImportFrom(names=names):
                    bound = [alias.asname or alias.name for alias in names]
                case ast.Name(id=name, ctx=ast.Store()):
                    bound = [name]
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    bound = [name]
                case ast.Name() | ast.Attribute() if self._name(node) in _HOOKIMPL:
                    raise _Computed
                case _:
                    bound = []
            if any(name == "*" or name.startswith(prefix) for name in bound):
                raise _Computed

    # -- components --------------------------------------------------------------------------

    def _listing(self, hook: str, function: ast.FunctionDef) -> tuple[ComponentSpec, ...]:
        """Return what a registration hook returns, where it does nothing else."""
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        match body:
            case [ast.Return(value=ast.List(elts=items) | ast.Tuple(elts=items))]:
                return tuple(self._component(hook, item) for item in items)
            case [] | [ast.Pass()] | [ast.Return(value=None | ast.Constant())]:
                raise PluginError(f"its hook {hook} must return a list of ComponentSpec")
        raise _Computed

    def _component(self, hook: str, call: ast.expr) -> ComponentSpec:
        if not isinstance(call, ast.Call) or self._name(call) not in _COMPONENT_SPEC:
            raise _Computed
        positional = [_literal(value) for value in call.args]
        named = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
        if "None" in named:
            raise _Computed  # `**more`
        try:
            return ComponentSpec(*positional, **named)
        except TypeError as error:
            raise PluginError(f"its hook {hook} failed: {one_line(error)}") from error

    def _name(self, node: ast.AST) -> str:
        """Return the full name behind `name`, `module.name` or a call of either; empty if it is not known."""
        match node:
            case ast.Call(func=called):
                return self._name(called)
            case ast.Name(id=name):
                return self._imported.get(name, name)
            case ast.Attribute(value=value, attr=attribute):
                return f"{self._name(value)}.{attribute}"
        return ""


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that a module imports, each with its full name."""
    for statement in tree.body:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    top = alias.name.partition(".")[0]
                    yield (alias.asname, alias.name) if alias.asname else (top, top)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in names)


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING")


def _check_arguments(hook: str, arguments: ast.arguments) -> None:
    """Hold a hook's arguments to its specification, as pluggy does when the plugin is imported."""
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise _Computed
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = names[: len(names) - len(arguments.defaults)]
    if more := [name for name in required if name not in ARGUMENTS[hook]]:
        given = ", ".join(ARGUMENTS[hook]) or "nothing"
        raise PluginError(f"its hook {hook} asks for {', '.join(more)}, and is given {given}")


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (TypeError, ValueError) as error:
        raise _Computed from error
