"""Puts the project's root on the path, so that tests import it as programs do."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
