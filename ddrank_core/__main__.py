"""Lets `python -m ddrank_core` stand for `ddrank`."""

import sys

from ddrank_core.cli.main import main

sys.exit(main())
