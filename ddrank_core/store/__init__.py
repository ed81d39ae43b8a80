"""Finished trials, kept in SQLite under a digest of everything that determines them.

A run looks here first, so that a rerun trains only what is missing. A trial is durable the moment it is put.
"""

from __future__ import annotations

from ddrank_core.store.database import SCHEMA_VERSION as SCHEMA_VERSION
from ddrank_core.store.database import cache_folder as cache_folder
from ddrank_core.store.trial import About as About
from ddrank_core.store.trial import StoredTrial as StoredTrial
from ddrank_core.store.trials import TrialStore as TrialStore
