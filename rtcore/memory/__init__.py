"""Every shared struct (`layout/`) and the protocols over them: who writes, who reads, in which order.

Imports `scheduling`, `spaces`.
"""
