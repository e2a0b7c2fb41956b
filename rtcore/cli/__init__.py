"""The programs, one file each: its words, then an exit code.

`run` holds the words of rtcore-run, `do_run` what they ask for; so report, sweep and top. Help and a wrong word thus
need nothing of what the work imports. `mend` is run as `python -m rtcore.cli.mend`. `exits` says how every program
ends. Imports everything.
"""
