"""Captum's private helpers that this package uses, in one place; setup.cfg gives the supported versions."""

from captum._utils.common import (
    _format_additional_forward_args,
    _format_tensor_into_tuples,
    _reduce_list,
    _select_targets,
    _sort_key_list,
)
from captum._utils.gradient import _extract_device_ids, _forward_layer_distributed_eval
from captum._utils.progress import progress
from captum._utils.typing import TargetType
from captum.attr._utils.visualization import _cumulative_sum_threshold, _normalize_scale

__all__ = [
    "TargetType",
    "_cumulative_sum_threshold",
    "_extract_device_ids",
    "_format_additional_forward_args",
    "_format_tensor_into_tuples",
    "_forward_layer_distributed_eval",
    "_normalize_scale",
    "_reduce_list",
    "_select_targets",
    "_sort_key_list",
    "progress",
]
