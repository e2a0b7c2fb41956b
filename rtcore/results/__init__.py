"""What a run counted, as rows and numbers, the folder that they are kept in, and why a tick went as it did.

Imports `memory`.
"""
