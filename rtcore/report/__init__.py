"""What people see of a run: the live view, tables, pictures, the page, the video, the Perfetto trace.

Imports `results` and `recording`.
"""
