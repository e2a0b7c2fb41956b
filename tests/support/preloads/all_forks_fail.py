"""As if the limit of processes were reached for good."""

import sys

from tests.support.launcher_parts import fail_forks

fail_forks(sys.maxsize)
