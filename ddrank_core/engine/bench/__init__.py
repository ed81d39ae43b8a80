"""Measurements: how fast this device trains and tests, how long a run will take, how to run its students.

A package of its own, so that the digest of the engine's modules, which stands in every trial's key, leaves it
out: nothing here changes a result.
"""
