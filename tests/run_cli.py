"""The command line in a process of its own, with a torchvision that imports: what subprocesses and torchrun start."""

import signal
import sys

import torchvision_schemas  # noqa: F401

from captum_regioncam.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background hands down as ignored
sys.exit(main())
