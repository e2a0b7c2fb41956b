"""The programs: from their words to an exit code.

Imports everything.
"""
