"""As if the limit of processes were reached for a moment."""

from tests.support.launcher_parts import fail_forks

fail_forks(2)
