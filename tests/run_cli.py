"""The command line in a process of its own, with a torchvision that imports: what subprocesses and torchrun start."""

import signal
import sys

import torchvision_schemas  # noqa: F401
from lightning_utilities.core.imports import RequirementCache

from captum_regioncam.cli import main

# torchmetrics imports transformers if it is installed, which takes longer than all that these processes do.
_is_met = RequirementCache.__bool__
RequirementCache.__bool__ = lambda self: "transformers" not in str(self.requirement) and _is_met(self)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background hands down as ignored
sys.exit(main())
