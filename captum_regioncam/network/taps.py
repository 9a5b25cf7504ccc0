"""The tensors that Captum's hooks keep: those that pass the layers, in the network's own run."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from captum_regioncam.errors import LayerError
from captum_regioncam.network.captum_private import _extract_device_ids, _forward_layer_distributed_eval, _sort_key_list
from captum_regioncam.network.outputs import layer_name
from captum_regioncam.network.turns import Turn, turn

__all__ = ["run_tapped"]


def run_tapped(
    forward: Callable[..., Tensor],
    args: Sequence[Any],
    layers: Sequence[tuple[Module, bool]],
    *,
    network: Callable[..., Any],
    check: Callable[[Module, bool, Any], None],
    device_ids: list[int] | None,
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Run a forward function, and keep the tensors that pass the layers, with Captum's hooks.

    Args:
        forward: returns the scores.
        args: its arguments.
        layers: modules that it calls, each with whether its input is kept instead of its output.
        network: the user's forward function, which Captum asks for its signature.
        check: called with a layer, whether its input is kept, and what passes it; raises an error if that cannot be
            attributed.
        device_ids: the order of DataParallel's devices, needed if ``network`` does not tell it.

    Returns:
        The scores, and each layer's tensor on every device that ran it: one, except with DataParallel. If a single
        layer has several tensors, one entry for each.

    Raises:
        LayerError: a layer is never reached.

    Warns:
        UserWarning: a layer runs several times.
    """

    def checked(*args: Any) -> Tensor:
        scores = forward(*args)
        if missed := [layer_name(tap.layer, network) for tap in taps if tap.rank is None]:
            raise LayerError(
                f"layer: the forward pass never reaches {', '.join(missed)}. Choose modules that forward_func "
                "calls; find_stages(model, x) finds them."
            )
        return scores

    def hooked(forward: Callable[..., Tensor], taps: list[_Tap], into: bool) -> Callable[..., Tensor]:
        def with_hooks(*args: Any) -> Tensor:
            passed, scores = _forward_layer_distributed_eval(
                forward,
                args,
                cast(Any, taps),  # Captum calls nothing of a layer but what a tap has
                attribute_to_layer_input=into,
                forward_hook_with_return=True,
                require_layer_grads=True,
            )
            saved.update(cast(Any, passed))
            return scores

        forward.__wrapped__ = network  # type: ignore[attr-defined]  # whose signature Captum looks at
        return with_hooks if taps else forward

    saved: dict[_Tap, dict[torch.device, tuple[Tensor, ...]]] = {}
    with turn() as own:
        runs = _Runs(own, _around([layer for layer, _ in layers], network))
        taps = [_Tap(layer, at_input, own, runs, check) for layer, at_input in layers]
        run = hooked(checked, [tap for tap in taps if tap.at_input], into=True)
        run = hooked(run, [tap for tap in taps if not tap.at_input], into=False)
        scores = run(*args)
    for tap in taps:
        is_in_the_outer_run = tap.rank is not None and tap.rank[2] <= 1
        if tap.times > 1 and isinstance(network, Module) and is_in_the_outer_run:  # of a function, this is not known
            warnings.warn(
                f"layer {layer_name(tap.layer, network)} runs {tap.times} times in the forward pass; the attribution "
                "is to its last call. If that is not meant, choose a module that runs once.",
                stacklevel=2,
            )
    device_ids = _extract_device_ids(network, cast(Any, saved), device_ids)
    tensors = []
    for tap in taps:
        devices = _sort_key_list(list(saved[tap]), device_ids)
        tensors += list(zip(*(saved[tap][device] for device in devices), strict=True))
    return scores, tensors


class _Tap:
    """A layer as Captum sees it. The hooks that Captum registers here see the calls that belong to the forward pass.

    If the layer runs several times, the last call counts, as in LayerGradCam. But a call without gradients, or that
    another thread makes, or a run of the network inside its own run (started by a user's hook, say), counts only if no
    other does.
    """

    def __init__(
        self, layer: Module, at_input: bool, own: Turn, runs: "_Runs", check: Callable[[Module, bool, Any], None]
    ) -> None:
        self.layer, self.at_input, self._own, self._runs, self._check = layer, at_input, own, runs, check
        self.times = 0
        """How many calls might have counted: those of the same rank. Those of DataParallel's replicas are one."""
        self.rank: tuple[bool, bool, int] | None = None
        """Of the call that counts: whether it ran without gradients, whether another thread made it, and the number of
        runs of the network around it."""

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        def tapped(module: Module, args: Any) -> Any:
            return hook(module, args) if self._counts(module, args) else None

        return self._placed(self.layer.register_forward_pre_hook(tapped))

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        def tapped(module: Module, args: Any, output: Any) -> Any:
            return hook(module, args, output) if self._counts(module, output) else None

        return self._placed(self.layer.register_forward_hook(tapped))

    def _placed(self, handle: RemovableHandle) -> RemovableHandle:
        self._own.at_end(handle.remove)
        return handle

    def _counts(self, module: Module, passed: Any) -> bool:
        if not self._own.is_current:
            return False
        is_replica = module is not self.layer  # DataParallel's, each of which runs in a thread of its own
        is_of_another = not is_replica and get_ident() != self._own.thread
        rank = (not torch.is_grad_enabled(), is_of_another, self._runs.under_way())
        if self.rank is not None and rank > self.rank:
            return False
        self._check(self.layer, self.at_input, passed)
        self.times = self.times + 1 if rank == self.rank and not is_replica else 1
        self.rank = rank
        return True


class _Runs:
    """Counts the runs of a network that are under way in each thread, one inside the other."""

    def __init__(self, own: Turn, modules: Collection[Module]) -> None:
        self._own, self._modules = own, modules
        self._running: Counter[tuple[int, Module]] = Counter()
        for module in modules:
            begin, end = partial(self._count, module, 1), partial(self._count, module, -1)
            own.at_end(module.register_forward_pre_hook(begin).remove)
            own.at_end(module.register_forward_hook(end, always_call=True).remove)

    def under_way(self) -> int:
        return max((self._running[get_ident(), module] for module in self._modules), default=0)

    def _count(self, module: Module, by: int, *_: Any) -> None:
        if self._own.is_current:
            self._running[get_ident(), module] += by


def _around(layers: Sequence[Module], forward_func: Callable[..., Any]) -> list[Module]:
    """List the modules of a network that have layers inside, if the forward function tells its network."""
    network = forward_func if isinstance(forward_func, Module) else getattr(forward_func, "__self__", None)
    if not isinstance(network, Module):
        return []
    paths = [name.split(".") for name, module in network.named_modules() if module in layers]
    names = {".".join(path[:depth]) for path in paths for depth in range(len(path))}
    return [network.get_submodule(name) for name in sorted(names)]
