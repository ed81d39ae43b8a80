"""Which checks there are, by kind, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from ddrank_core.registry import ALL_KINDS
from ddrank_core.testing import (
    architectures,
    augmentations,
    classes,
    datasets,
    label_mappings,
    losses,
    methods,
    sinks,
)
from ddrank_core.testing.case import Case
from ddrank_core.testing.cohorts import trains_in_cohort

TARGET_RESOLVES = "the target resolves"
CLASS_IS_LIGHT = "its class imports nothing heavy"


@attrs.frozen
class Rule:
    """One thing that a contract asks of a component."""

    title: str
    check: Callable[[Case], None]
    applies: Callable[[Case], bool] = lambda case: True
    once_per: Literal["name", "class"] = "class"
    """What a class does is not shown again for a short name of it, whose parameters an example can have."""


def _with_reference(case: Case) -> bool:
    return case.reference is not None


_OF_EVERY_CLASS = (
    Rule(TARGET_RESOLVES, classes.target_resolves, once_per="name"),
    Rule("the parameters are frozen", classes.parameters_frozen, once_per="name"),
    Rule("the parameters are annotated and documented", classes.parameters_documented, once_per="name"),
    Rule("survives a config", classes.survives_config, once_per="name"),
    Rule("survives pickling", classes.survives_pickling, once_per="name"),
    Rule("bad parameters are refused", classes.refuses_bad_parameters, once_per="name"),
)

_DEVICE = "device and dtype are kept"
_INPUT = "the input is left as it was"
_SEED = "the same seed gives the same output"
_GLOBAL = "the global random state is left as it was"
_GRADIENTS = "gradients are finite"
_MIXED = "mixed images come with mixed labels"
_SHAPES = "takes the image shapes that it claims"
_COHORT = "trains in a cohort"
_REFERENCE = "agrees with its reference"

_OF_KIND: Mapping[str, tuple[Rule, ...]] = {
    "loss": (
        Rule("takes every kind of label or says that it does not", losses.takes_all_labels),
        Rule(_DEVICE, losses.keeps_device_and_dtype),
        Rule(_INPUT, losses.leaves_input),
        Rule(_SEED, losses.same_seed),
        Rule(_GLOBAL, losses.leaves_generators),
        Rule(_GRADIENTS, losses.finite_gradients),
        Rule(_MIXED, losses.mixes_labels),
        Rule("is a mean over the batch", losses.is_mean),
        Rule(_COHORT, trains_in_cohort),
        Rule(_REFERENCE, losses.agrees_with_reference, _with_reference),
    ),
    "label-mapping": (
        Rule("gives soft labels where it says so", label_mappings.gives_soft),
        Rule("says what it misses", label_mappings.says_what_it_misses),
        Rule(_DEVICE, label_mappings.keeps_device_and_dtype),
        Rule(_INPUT, label_mappings.leaves_input),
        Rule(_SEED, label_mappings.same_seed),
        Rule(_GLOBAL, label_mappings.leaves_generators),
        Rule(_MIXED, label_mappings.mixes_labels),
        Rule(_COHORT, trains_in_cohort),
        Rule(_REFERENCE, label_mappings.agrees_with_reference, _with_reference),
    ),
    "augmentation": (
        Rule(_SHAPES, augmentations.takes_image_shapes),
        Rule(_DEVICE, augmentations.keeps_device_and_dtype),
        Rule(_INPUT, augmentations.leaves_input),
        Rule(_SEED, augmentations.same_seed),
        Rule(_GLOBAL, augmentations.leaves_generators),
        Rule(_MIXED, augmentations.mixes_labels),
        Rule(_COHORT, trains_in_cohort),
        Rule(_REFERENCE, augmentations.agrees_with_reference, _with_reference),
    ),
    "architecture": (
        Rule(_SHAPES, architectures.takes_image_shapes),
        Rule("takes other shapes or says that it does not", architectures.refuses_other_shapes),
        Rule(_DEVICE, architectures.keeps_device_and_dtype),
        Rule(_INPUT, architectures.leaves_input),
        Rule(_SEED, architectures.same_seed),
        Rule(_GLOBAL, architectures.leaves_generators),
        Rule(_GRADIENTS, architectures.finite_gradients),
        Rule(_COHORT, trains_in_cohort),
        Rule(_REFERENCE, architectures.agrees_with_reference, _with_reference),
    ),
    "dataset": (
        Rule("states sound facts", datasets.facts_are_sound, datasets.states_facts),
        Rule("says which files are missing", datasets.says_what_is_missing, datasets.has_files),
        Rule("loads sound data", datasets.loads_sound_data, datasets.can_load),
        Rule("loads the same each time", datasets.same_each_time, datasets.can_load),
        Rule(_GLOBAL, datasets.leaves_generators, datasets.can_load),
        Rule(_REFERENCE, datasets.agrees_with_reference, _with_reference),
    ),
    "method": (
        Rule("gives the images that are asked for", methods.gives_what_is_asked),
        Rule(_DEVICE, methods.keeps_device_and_dtype),
        Rule(_INPUT, methods.leaves_input),
        Rule(_SEED, methods.same_seed),
        Rule(_GLOBAL, methods.leaves_generators),
        Rule("never looks at the test images", methods.leaves_test_images),
        Rule("reports its steps", methods.reports_steps),
        Rule(_REFERENCE, methods.agrees_with_reference, _with_reference),
    ),
    "sink": (
        Rule("takes every event of a run", sinks.takes_every_event),
        Rule("passes over events that it does not know", sinks.passes_over_unknown_events),
        Rule("can be closed at any time", sinks.closes_at_any_time),
        Rule("keeps an event at once", sinks.keeps_at_once),
        Rule("adds to what is there", sinks.adds_to_what_is_there),
        Rule("says what cannot be written", sinks.says_what_cannot_be_written),
        Rule(_GLOBAL, sinks.leaves_generators),
        Rule("prints nothing", sinks.leaves_stdout),
    ),
}

RULES: Mapping[str, tuple[Rule, ...]] = {
    kind: (*_OF_EVERY_CLASS, *_OF_KIND.get(kind, ())) for kind in ALL_KINDS
}
"""Kind -> what is checked of each of its components; that its class is light comes on top."""
