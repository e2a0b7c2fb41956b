"""How a network is built without memory, on torch's meta device, and whether it computes something meanwhile.

What is computed there, be it one multiplication, makes torch import its compiler: 800 modules, 1 to 2 s and 70 MB, in
each worker anew unless the fork server has done it before. Most networks only make parameters and draw them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Draws for which torch imports its compiler on the meta device, where there is nothing to be drawn.
_DRAWS: set[Any] = {Tensor.normal_, torch.nn.init.normal_}
#: What makes, draws, loads and moves parameters: for these torch imports nothing on the meta device. Nor does it for
#: a look at a tensor's attribute, or to set one.
_COMPUTE_NOTHING: set[Any] = {
    *_DRAWS,
    *(torch.empty, torch.zeros, torch.ones, torch.tensor, torch._C._set_grad_enabled),
    *(Tensor.uniform_, Tensor.fill_, Tensor.zero_, Tensor.requires_grad_, Tensor.new_empty),
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_contiguous, Tensor.is_floating_point, Tensor.is_complex),
    *(Tensor.to, Tensor.copy_, Tensor.detach, Tensor.contiguous),
    *(torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type),
    *(torch.nn.init.uniform_, torch.nn.init.kaiming_uniform_, torch.nn.init.constant_),
}


class WithoutDraws(TorchFunctionMode):
    """Within it nothing is drawn into a tensor without memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return func(*args, **kwargs)


class BuildWatch(TorchFunctionMode):
    """Sees whether what is built within it, with memory, would compute something on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        #: What is not known to compute nothing counts.
        self.has_computed = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _COMPUTE_NOTHING and getattr(func, "__name__", "") not in ("__get__", "__set__"):
            self.has_computed = True
        return func(*args, **(kwargs or {}))
