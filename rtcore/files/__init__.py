"""What is written to disk and read from it: checks before reading, checksums, strict JSON, what a file may decide.

Files from outside are data: nothing in them names code to run. Imports `errors`.
"""
