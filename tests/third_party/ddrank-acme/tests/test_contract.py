"""Every component keeps the contract of its kind, and agrees with its reference."""

from __future__ import annotations

import by_hand

from ddrank_core.testing import conformance_tests

test_contract = conformance_tests(
    "ddrank-acme",
    examples={
        "acme/focal": [{"gamma": 0.0}, {"gamma": 0.5}],
        "acme/corrected": [{"temperature": 4.0}],
        "acme/cutout": [{"size": 3}, {"size": 100}],
        "acme/convmixer": [{"width": 8, "depth": 2, "kernel": 3, "patch": 2}],
    },
    references={
        "acme/focal": by_hand.focal,
        "acme/corrected": by_hand.corrected,
        "acme/cutout": by_hand.cutout,
        "acme/convmixer": by_hand.ConvMixer,
    },
    image_shapes={
        "acme/convmixer": [(3, 32, 32), (1, 28, 28), (3, 9, 5)],
        "acme/cutout": [(3, 32, 32), (1, 5, 7)],
    },
    checks=67,
)
