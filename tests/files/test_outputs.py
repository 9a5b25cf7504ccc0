import os
import socket
import stat
import subprocess
import sys
import threading

import pytest
from made_datasets import everything

from captum_regioncam.files import outputs
from captum_regioncam.files.outputs import MARK, OutputError, check_output, is_stream, write_whole

OURS = f'{{"written_by": "{MARK} 0.3.0"}}'


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    write_whole(path, b"first")
    assert path.read_bytes() == b"first"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def interrupted(self, content):
        with open(self, "wb") as file:
            file.write(content[:3])
        raise KeyboardInterrupt

    before = everything(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(outputs.Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"second")
    assert everything(tmp_path) == {**before, "new": (None, before["new"][1], path.parent.stat().st_mtime_ns)}


def test_a_replaced_file_hands_on_its_permissions_and_a_symlink_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "scores.json", tmp_path / "link.json"
    target.write_text(OURS)
    target.chmod(0o600)
    link.symlink_to(target)
    check_output(link)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(everything(tmp_path)) == ["elsewhere", "elsewhere/scores.json", "link.json"]


@pytest.mark.parametrize(
    "kind", ["somebody's", "a quotation", "write-protected", "folder", "below a file", "record", "socket"]
)
def test_what_is_not_ours_is_refused_and_stays(tmp_path, monkeypatch, kind):
    path = tmp_path / (".captum_regioncam.json" if kind == "record" else "out.json")
    expected = {
        "somebody's": "did not write",
        "a quotation": "did not write",
        "record": "reserves for its records",
        "folder": "is a folder",
    }
    if kind == "folder":
        path.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    else:
        path.write_text(OURS if kind in ("write-protected", "record") else f"somebody's, about files {MARK}")
    if kind == "write-protected":
        path.chmod(0o444)
    before = everything(tmp_path)
    asked = path / "out.json" if kind == "below a file" else path
    says = expected.get(kind, {"below a file": "is a file", "socket": "not a regular file"}.get(kind, kind))
    with pytest.raises(OutputError, match=says):
        check_output(asked)
    if kind not in (
        "somebody's",
        "record",
        "a quotation",
    ):  # these are refused before, as only the command knows that they are
        with pytest.raises(OutputError):
            write_whole(asked, b"ours")
    assert everything(tmp_path) == before


def test_a_fifo_and_stdout_get_the_bytes(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    check_output(fifo)
    write_whole(fifo, b"through")
    reader.join(20)
    assert read == [b"through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    code = (
        "from captum_regioncam.files.outputs import check_output, write_whole\n"
        "check_output('/dev/stdout'); write_whole('/dev/stdout', b'through')"
    )
    for redirected in (False, True):
        with open(tmp_path / "stdout", "wb") as file:
            to = file if redirected else subprocess.PIPE
            done = subprocess.run([sys.executable, "-c", code], stdout=to, check=True)
        assert ((tmp_path / "stdout").read_bytes() if redirected else done.stdout) == b"through"
    (tmp_path / "stdout").write_bytes(b"before,")
    with open(tmp_path / "stdout", "ab") as file:
        subprocess.run([sys.executable, "-c", f"print('printed,', end=''); {code}"], stdout=file, check=True)
    assert (tmp_path / "stdout").read_bytes() == b"before,printed,through"
    assert not is_stream("/dev/fd/../cwd/notes")
    assert is_stream("/dev/null")
    assert not is_stream(tmp_path / "nothing")
    assert not is_stream("a\0b")
