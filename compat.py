"""Names of common.compat: all modules use `from compat import slim, tf`."""

from common.compat import *  # noqa: F403
