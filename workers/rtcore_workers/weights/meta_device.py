"""Importing this computes once without memory, so that torch imports what it takes: 800 modules, 1 s and 70 MB.

For the fork server: else each worker whose network computes something in its constructor would (`building.py`).
"""

import torch

torch.empty(1, device="meta").normal_()
