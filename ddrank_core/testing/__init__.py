"""The conformance kit: holds every component of an installed plugin to the contract of its kind.

In a test file of the plugin:

    from ddrank_core.testing import conformance_tests

    test_contract = conformance_tests("ddrank-acme", checks=27)
"""

from __future__ import annotations

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ddrank_core.testing needs pytest, which is not installed; run 'pip install pytest'"
    ) from error

from ddrank_core.testing.suite import conformance_tests

__all__ = ["conformance_tests"]
