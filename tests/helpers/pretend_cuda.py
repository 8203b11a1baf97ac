"""A CUDA device that is none: tensors that say they are on it, and compute on the CPU under its rules.

Fake tensors have no values, and code ends at the first number that is read back. Here values are there, and what CUDA
refuses is refused: tensors of two devices in one operation (but for numbers without dimension where CUDA takes them,
and indices of a tensor on CUDA), a generator of another device, numpy. Waits of the host are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # while functions are as they are: it keeps them by their identity
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from probemb_lib import twins

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten


COPIES = (aten._to_copy, aten.copy_, aten.copy, aten._copy_from)
INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put)
"""Their indices may be on the CPU."""

READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
READS += ("bincount", "is_nonzero")
"""Their result, or its size, is read by the host. So are masks as indices, and repetitions without their sum."""


class OnCuda(Tensor):
    """A tensor on the pretended device; ``inner`` has its values, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnCuda:
        x: OnCuda = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="meta",  # to C++, which in a build for CPUs knows no CUDA
        )
        x.inner = inner.detach()
        return x

    def __repr__(self, **_: Any) -> str:
        return f"OnCuda({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of pretended_cuda()")

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        options = {"dtype": self.dtype, "device": DEVICE, **options}
        return torch.tensor(data, **options)

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()


class _Devices(TorchFunctionMode):
    """Numbers the device where it is only named: C++ would ask CUDA which is the current one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_numbered, args), **tree_map(_numbered, kwargs or {}))


def _numbered(x: Any) -> Any:
    return DEVICE if isinstance(x, (str, torch.device)) and str(x) == "cuda" else x


class PretendedCuda(TorchDispatchMode):
    """Runs each operation on the CPU, if it may run. ``waits`` counts by name what the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        there = [t for t in leaves if isinstance(t, OnCuda)]
        target = kwargs.get("device")
        made_there = target is not None and torch.device(target).type in ("cuda", "meta")
        if not there and not made_there:
            return func(*args, **kwargs)
        if func.namespace == "probemb_lib":  # an operator in Python, which real tensors would reach as they are
            with self:
                return torch._library.custom_ops.OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        with self:  # of other operations, within such an operator
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        self._check(func, args, leaves, there, made_there)
        back = target is not None and not made_there
        self._count(func, args, kwargs, there, made_there, back)
        if target is not None:
            kwargs["device"] = "cpu"
        if kwargs.pop("pin_memory", None):
            raise RuntimeError(f"{func}: only tensors on the CPU can be pinned")
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if back:
            return result
        written = [
            arg
            for arg, argument in zip((*args, *kwargs.values()), func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(arg, Tensor)
        ]
        if written and isinstance(result, Tensor):
            return written[0]
        return tree_map(lambda t: OnCuda(t) if isinstance(t, Tensor) else t, result)

    def _check(self, func: Any, args: Any, leaves: list[Any], there: list[OnCuda], made_there: bool) -> None:
        packet = func.overloadpacket
        generators = [g for g in leaves if isinstance(g, torch.Generator)]
        if generators:
            raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
        here = [t for t in leaves if isinstance(t, Tensor) and not isinstance(t, OnCuda)]
        if not here or not there or packet in COPIES:
            return
        if packet in INDEXED and isinstance(args[0], OnCuda):
            return
        if torch.Tag.pointwise in func.tags and all(t.ndim == 0 for t in here):
            written = func._schema.arguments[0].alias_info is not None and not isinstance(args[0], OnCuda)
            if not written:
                return
        raise RuntimeError(
            f"{func}: expected all tensors on one device, got {[tuple(t.shape) for t in here]} on cpu and "
            f"{[tuple(t.shape) for t in there]} on cuda"
        )

    def _count(self, func: Any, args: Any, kwargs: Any, there: list[OnCuda], made_there: bool, back: bool) -> None:
        packet = func.overloadpacket
        name = packet.__name__
        mixed = any(isinstance(t, Tensor) and not isinstance(t, OnCuda) for t in tree_leaves((args, kwargs)))
        if packet in COPIES:
            if (back or mixed) and not kwargs.get("non_blocking", False):
                self.waits["copy to the CPU" if back else "copy from the CPU"] += 1
        elif packet in INDEXED:
            if mixed or any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
                self.waits["index by a mask or of the CPU"] += 1
        elif name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.waits[name] += 1


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnCuda) else x


@contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """Within this ``device="cuda"`` is the pretended device; Triton is not there, plain torch is run."""
    lifted = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes its tensor here first
        stack.enter_context(mock.patch.object(torch.cuda, "_lazy_init"))
        stack.enter_context(mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=False))
        stack.enter_context(
            mock.patch.object(twins, "missing", return_value="no kernels on a device that is pretended")
        )
        swapped = mock.patch.object(torch.__future__, "get_swap_module_params_on_conversion", return_value=True)
        stack.enter_context(swapped)  # module.to("cuda"): parameters become others, in place their data cannot
        stack.enter_context(_Devices())
        yield stack.enter_context(PretendedCuda())
