"""What a run counted, as rows and numbers, and the folder that they are kept in.

Imports `memory`.
"""
