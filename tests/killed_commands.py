"""Run commands in forks of this process, and kill those that are to be killed at one of their steps on disk.

Reads lines of JSON, [folder, arguments, step or null], and answers each with [exit status, what was printed].
"""

import json
import os
import sys
import tempfile

import torch
import torchvision_schemas  # noqa: F401

import captum_regioncam.evaluation  # noqa: F401
from captum_regioncam.cli import evaluate, explain, label_maps, main, seeds  # noqa: F401

KILLED = 137
STEPS = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")


def killed_at(step):
    """End this process before its n-th step on disk, as SIGKILL would: nothing is cleaned up."""
    steps = 0

    def watch(event, arguments):
        nonlocal steps
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in STEPS:
            steps += 1
            if steps == step:
                os._exit(KILLED)

    sys.addaudithook(watch)


def child(folder, arguments, step, output):
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    if step is not None:
        killed_at(step)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    sys.stdout.flush()
    sys.stderr.flush()
    return status


torch.set_num_threads(1)
for line in sys.stdin:
    folder, arguments, step = json.loads(line)
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = child(folder, arguments, step, output.fileno())
            finally:
                if status == 70:
                    sys.excepthook(*sys.exc_info())
                    sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        print(json.dumps([os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")]), flush=True)
