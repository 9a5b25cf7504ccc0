"""The command line in a process of its own, with a torchvision that imports: what subprocesses and torchrun start."""

import sys

import torchvision_schemas  # noqa: F401

from captum_regioncam.cli import main

sys.exit(main())
