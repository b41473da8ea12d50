"""Checks that this machine can do what HU-04 needs; exit code 0 if it can, 2 if not."""

import sys

from hu04 import raudo

sys.exit(raudo("doctor", *sys.argv[1:]))
