"""The stages' tensors in a run of a network, by plain hooks."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from captum_regioncam import Stages


class Tape:
    """Runs a network and keeps the tensors of its stages; of a module that runs several times, those of the last call.

    Attributes:
        calls: how often each stage's module ran, {stage: times}.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.calls: Counter[str] = Counter()

    def run(self, forward: Callable[[], Any]) -> tuple[dict[str, Tensor], Any]:
        """Return {stage: tensor as its module gives or takes it}, and what the forward pass returned."""
        kept: dict[str, Tensor] = {}
        calls: Counter[str] = Counter()

        def keep(stage: str, passed: Any) -> Any:
            """Keep a tensor, and pass on a copy, so that nothing changes in place what is kept."""
            several = isinstance(passed, (tuple, list))
            tensor = passed[0] if several else passed
            if not isinstance(tensor, Tensor):
                return passed
            kept[stage] = tensor
            calls[stage] += 1
            return type(passed)([tensor.clone(), *passed[1:]]) if type(passed) in (tuple, list) else tensor.clone()

        def before(stage: str) -> Callable[..., Any]:
            def hook(module: nn.Module, args: Any, keywords: Any) -> Any:
                if args:
                    return keep(stage, args), keywords
                name = next(name for name, value in keywords.items() if isinstance(value, Tensor))
                return args, {**keywords, name: keep(stage, keywords[name])}

            return hook

        def after(stage: str) -> Callable[..., Any]:
            return lambda module, args, output: keep(stage, output)

        hooks = [
            module.register_forward_pre_hook(before(stage), with_kwargs=True)
            if stage in self.stages.at_input
            else module.register_forward_hook(after(stage))
            for stage, module in self.stages.items()
        ]
        try:
            output = forward()
        finally:
            for hook in hooks:
                hook.remove()
        self.calls = calls
        return kept, output

    def on_grid(self, stage: str, tensor: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        r"""Bring a stage's tensor, or its gradient, onto its grid: (N, C, \*grid)."""
        transform = self._transform(stage)
        if hasattr(transform, "for_inputs"):
            transform = transform.for_inputs([value for value in inputs if isinstance(value, Tensor)])
        return tensor if transform is None else transform(tensor)

    def is_reshaped(self, stage: str) -> bool:
        """Return whether a stage has another layout than its grid's."""
        return self._transform(stage) is not None

    def _transform(self, stage: str) -> Any:
        transform = self.stages.reshape_transform
        return transform.get(stage) if isinstance(transform, Mapping) else transform
