import os
import stat

import pytest

from captum_regioncam.files import written_whole


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "first"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def interrupted():
        with written_whole(path) as temporary:
            temporary.write_text("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
