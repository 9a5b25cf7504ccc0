"""Draw docs/region_cam.png, the picture of the README: what ``captum-regioncam demo`` draws."""

import sys
from pathlib import Path

from captum_regioncam.cli import main

sys.exit(main(["demo", "--output", str(Path(__file__).parent / "region_cam.png")]))
