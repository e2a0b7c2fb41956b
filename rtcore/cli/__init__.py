"""The programs, one file each: its words, then an exit code.

`run` holds the words of rtcore-run, `do_run` what they ask for; so report, sweep and top. Help and a wrong word thus
need nothing of what the work imports. `mend` is run as `python -m rtcore.cli.mend`. `exits` says how every program
ends. Imports everything.
"""

import os

# A program's NumPy multiplies little. Its threads for that would look for work, and find none, for 0.1 s of CPU time
# from the import on: the time in which the run's own processes start.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
