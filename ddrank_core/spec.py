"""How a component describes itself: the manifest's line, and the typed class behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, dataclass_transform, get_args

import attrs

Kind = Literal["loss", "label-mapping", "augmentation", "architecture", "dataset", "method", "sink"]
"""The kinds that plugins register, each through a hook of its own."""

KINDS: tuple[Kind, ...] = get_args(Kind)

HOOKS: dict[Kind, str] = {
    "loss": "ddrank_losses",
    "label-mapping": "ddrank_label_mappings",
    "augmentation": "ddrank_augmentations",
    "architecture": "ddrank_architectures",
    "dataset": "ddrank_datasets",
    "method": "ddrank_methods",
    "sink": "ddrank_sinks",
}
"""Kind -> the registration hook that brings it."""

_Class = TypeVar("_Class", bound=type)


@attrs.frozen
class ComponentSpec:
    """One line of a plugin's manifest: a name, and where the component behind it lives.

    `name` is `vendor/name` for a third party (`acme/focal`); bare names belong to the
    project's own plugins. A name that ends in `/*` (`timm/*`) claims a whole family: its
    target is then an object with `members() -> Sequence[str]` and
    `component(member: str) -> type`; the latter is also asked for variants `member.tag`.

    `target` is `"module:Class"`, imported when a config first uses the name.

    `preset` makes the name a short one for a component with some of its parameters set; a config's own
    parameters come on top. Short names can be used like any other, and are listed apart.

    Example:
        ComponentSpec("acme/focal", "acme.focal:FocalLoss", "Focal loss (Lin et al. 2017)")
        ComponentSpec("acme/focal-5", "acme.focal:FocalLoss", "Focal loss", preset={"gamma": 5.0})
    """

    name: str
    target: str
    summary: str
    preset: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, hash=False, repr=False)

    @property
    def is_family(self) -> bool:
        return self.name.endswith("/*")


class ParameterError(ValueError):
    """A parameter that is out of its range: which one, and what is wrong with it."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter
        self.problem = problem


def parameter(
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """Declare one parameter of a component: its documentation, default and range.

    `doc` is shown by `ddrank show`. `minimum` and `maximum` are inclusive, `above` and
    `below` exclusive. `check` takes the value and returns what is wrong with it, or
    None. A list or dict default is not allowed: use a tuple.

    Raises:
        ParameterError: when the component is made with a value out of range; the config
            loader turns it into one line that names the field.

    Example:
        temperature: float = parameter("softens both sides", default=4.0, above=0)
    """

    def validate(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        # `not value > bound` rather than `value <= bound`: NaN fails every comparison.
        if minimum is not None and not value >= minimum:
            raise ParameterError(attribute.name, f"must be at least {minimum:g}, got {value!r}")
        if above is not None and not value > above:
            raise ParameterError(attribute.name, f"must be greater than {above:g}, got {value!r}")
        if maximum is not None and not value <= maximum:
            raise ParameterError(attribute.name, f"must be at most {maximum:g}, got {value!r}")
        if below is not None and not value < below:
            raise ParameterError(attribute.name, f"must be less than {below:g}, got {value!r}")
        if check is not None and (problem := check(value)):
            raise ParameterError(attribute.name, problem)

    bounds = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return attrs.field(default=default, validator=validate, metadata={"doc": doc, **given})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(parameter,))
def component(cls: _Class) -> _Class:
    """Make a class a component: a frozen, keyword-only attrs class whose fields are its parameters.

    Every annotated field becomes a parameter of the config; nothing else is needed for YAML,
    `ddrank show` and error messages. Import torch inside the methods, not at the top of the
    module, so that a config error is found without it.

    Example:
        @component
        class FocalLoss:
            gamma: float = parameter("focus on hard images", default=2.0, minimum=0)

            def __call__(self, logits, targets): ...
    """
    return attrs.frozen(kw_only=True)(cls)


def parameters_of(cls: type) -> Sequence[attrs.Attribute[Any]]:
    """Return the parameters of a component class, in order, with their types resolved."""
    fields: Sequence[attrs.Attribute[Any]] = attrs.fields(attrs.resolve_types(cls))
    return fields
