"""A pretended accelerator: tensors that say they lie on a device, and are computed on the CPU.

It is torch's own Python backend for devices it does not know, with two parts: `OnDevice` wraps a plain
tensor and says it lies on the device; `Pretending` sees every operation, also those that make tensors.
Operations that would fail on a device raise what torch raises there; what would be slow or wrong there
is noted in `Watch.objections`.

It stays registered until the process ends, so it is for processes of their own: see device_driver.py.
`FakeTensorMode` and the device `meta` do not serve: autograd aborts and autocast fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretended"
SMALL_COPY = 65_536  # bytes that a driver takes from pageable memory without waiting for the device

aten = torch.ops.aten
# each needs a value or a size from the device before the program can go on
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten._pin_memory,
}
COPIES = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
WIDE = (torch.float64, torch.complex128)


class _Backend(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def register() -> torch.device:
    """Tell torch of the device; once in a process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)  # autocast is allowed, and casts nothing
    _LIBRARIES.append(autocast)
    return torch.device(NAME, 0)


_LIBRARIES: list[torch.library.Library] = []


class Watch:
    """What is noted of the program.

    Attributes:
        in_step: whether a training step is running.
        float64_allowed: whether something is running that may use it.
        objections: what a device would do badly, each once, in the order of their first time.
        operations: computed on the device so far.
    """

    def __init__(self) -> None:
        self.in_step = self.float64_allowed = False
        self.operations = 0
        self.objections: list[str] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """A training step runs in here."""
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False

    @contextmanager
    def allowing_float64(self) -> Iterator[None]:
        """What runs in here may use it, outside a step."""
        self.float64_allowed = not self.in_step
        try:
            yield
        finally:
            self.float64_allowed = False

    def object(self, objection: str) -> None:
        """Note something, once."""
        if objection not in self.objections:
            self.objections.append(objection)


watch = Watch()


class OnDevice(Tensor):
    """A tensor of the device; `plain` computes for it."""

    plain: Tensor

    @staticmethod
    def __new__(cls, plain: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            plain.shape,
            strides=plain.stride(),
            storage_offset=plain.storage_offset(),
            dtype=plain.dtype,
            device=torch.device(NAME, 0),
        )
        made.plain = plain
        return made

    def __repr__(self) -> str:
        return f"OnDevice({self.plain!r})"

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        # what reads or replaces memory in C++, past all operations; `==`, for each access makes another
        if function == Tensor.data.__set__:
            target, source = arguments
            if isinstance(target, OnDevice) != isinstance(source, OnDevice):
                raise RuntimeError("data of one device was set to that of another")
            target.plain = source.plain
        elif function == Tensor.data.__get__:
            return arguments[0].detach()
        elif function == Tensor.tolist:
            note_waiting("tolist")
            return arguments[0].plain.tolist()
        with torch._C.DisableTorchFunctionSubclass():  # a result on the CPU stays a plain tensor
            return function(*arguments, **(keywords or {}))

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        return compute(function, arguments, keywords or {})


class Pretending(TorchDispatchMode):
    """Sees operations that have no tensor of the device, but make one."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        leaves = tree_leaves((arguments, keywords))
        meant = any(isinstance(leaf, torch.device) and leaf.type == NAME for leaf in leaves)
        if meant or any(isinstance(leaf, OnDevice) for leaf in leaves):
            return compute(function, arguments, keywords)
        return function(*arguments, **keywords)


def note_waiting(name: str) -> None:
    """The program waits for the device."""
    if watch.in_step:
        watch.object(f"{name} waits for the device")


def compute(function: Any, arguments: Any, keywords: Any) -> Any:
    """One operation of the device."""
    packet = function.overloadpacket
    name = str(packet).removeprefix("aten.")
    watch.operations += 1
    tensors = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
    if packet in COPIES:
        return _copy(function, packet, arguments, keywords)
    elsewhere = [each for each in tensors if not isinstance(each, OnDevice)]
    _look_at_places(packet, name, arguments, [each for each in elsewhere if each.dim()])
    if packet in WAITING:
        note_waiting(name)
    if packet is aten.repeat_interleave and keywords.get("output_size") is None:
        note_waiting(name)
    if packet is aten.convolution and watch.in_step:
        _look_at_layouts(arguments[0], arguments[1])
    plain_arguments, plain_keywords = _plain((arguments, keywords))
    if packet is aten.pixel_shuffle:
        found = _shuffled_as_on_cuda(*plain_arguments)
    elif packet is aten.pixel_unshuffle:
        found = function(*plain_arguments).contiguous()
    else:
        found = function(*plain_arguments, **plain_keywords)
    return _wrapped(function, arguments, keywords, found)


def _plain(tree: Any) -> Any:
    """Without wrappers, and with the CPU in place of the device."""
    cpu = torch.device("cpu")
    tree = tree_map_only(OnDevice, lambda tensor: tensor.plain, tree)
    return tree_map_only(torch.device, lambda device: cpu if device.type == NAME else device, tree)


def _wrapped(function: Any, arguments: Any, keywords: Any, found: Any) -> Any:
    found = tree_map_only(Tensor, OnDevice, found)
    for each in tree_leaves(found):
        if isinstance(each, OnDevice) and each.dtype in WIDE and not watch.float64_allowed:
            watch.object(f"{function.overloadpacket} makes {each.dtype} on the device")
    return return_and_correct_aliasing(function, arguments, keywords, found)


def _copy(function: Any, packet: Any, arguments: Any, keywords: Any) -> Any:
    """A copy from one place to another."""
    name = str(packet).removeprefix("aten.")
    if packet is aten._to_copy:
        source, device = arguments[0], keywords.get("device")
        to_device = isinstance(source, OnDevice) if device is None else device.type == NAME
        non_blocking = keywords.get("non_blocking", False)
    else:
        target, source = arguments[:2]
        to_device = isinstance(target, OnDevice)
        non_blocking = arguments[2] if len(arguments) > 2 else keywords.get("non_blocking", False)
    size = source.numel() * source.element_size()
    from_device = isinstance(source, OnDevice)
    if watch.in_step and from_device and not to_device:
        watch.object(f"{name} to the CPU waits for the device")
    if watch.in_step and to_device and not from_device:
        if size > SMALL_COPY:
            watch.object(f"{name} sends {size:,} bytes from pageable memory")
        if not non_blocking:
            watch.object(f"{name} to the device waits for it")
    plain_arguments, plain_keywords = _plain((arguments, keywords))
    plain_keywords.pop("non_blocking", None)
    found = function(*plain_arguments, **plain_keywords)
    if to_device:
        return _wrapped(function, arguments, keywords, found)
    return arguments[0] if packet is aten.copy_ else found


def _look_at_places(packet: Any, name: str, arguments: Any, elsewhere: list[Tensor]) -> None:
    """Refuse tensors of several devices, but for an index on the CPU, which is copied and waited for."""
    if packet in INDEXING:
        indices = [each for each in arguments[1] if each is not None]
        for index in indices:
            if not isinstance(index, OnDevice) and watch.in_step:
                watch.object(f"{name} by an index on the CPU")
            if index.dtype in (torch.bool, torch.uint8):
                note_waiting(f"{name} by a mask")
        elsewhere = [each for each in elsewhere if not any(each is index for index in indices)]
    if elsewhere:
        shapes = ", ".join(str(tuple(each.shape)) for each in elsewhere)
        raise RuntimeError(f"{name}: tensors on the device and on the CPU, of shape {shapes}")


def _look_at_layouts(features: Tensor, weight: Tensor) -> None:
    """Weights are laid out channels last; kernels convert what comes in another layout."""
    if min(features.shape[1:]) == 1 or weight.is_contiguous(memory_format=torch.contiguous_format):
        return
    if not features.is_contiguous(memory_format=torch.channels_last):
        shape = tuple(features.shape)
        watch.object(f"a convolution gets {shape} in another layout than its weights")


def _shuffled_as_on_cuda(features: Tensor, factor: int) -> Tensor:
    """PixelShuffle as every device but the CPU does it: the result is in the plain layout."""
    batch, channels, height, width = features.shape
    parted = features.reshape(batch, channels // factor**2, factor, factor, height, width)
    turned = parted.permute(0, 1, 4, 2, 5, 3)
    return turned.reshape(batch, -1, height * factor, width * factor).contiguous()
