"""``python -m captum_regioncam`` is ``captum-regioncam``."""

import sys

from captum_regioncam.cli import main

sys.exit(main())
