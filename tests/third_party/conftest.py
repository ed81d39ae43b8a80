"""Keeps pytest out of here: test_third_party.py installs these distributions, and runs the tests of one."""

collect_ignore_glob = ["*"]
