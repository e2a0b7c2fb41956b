"""Files, written and read: checks before reading, checksums, strict JSON, which settings of a file are refused.

Files from outside are data: nothing in them names code to run. Imports `errors`.
"""
