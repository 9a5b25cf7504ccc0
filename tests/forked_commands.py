"""Run commands in forks of this process, which has imported all that they need, and so starts them at once.

Reads lines of JSON and answers each: ["start", {arguments of start}] with the number of the fork, and ["ended", number,
whether to wait] with [exit status, standard output, standard error], or with null while the fork runs.
"""

import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import tempfile

import torch
import torchvision_schemas  # noqa: F401
from narrow_networks import narrow_networks
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import captum_regioncam
from captum_regioncam.cli import main

for module in pkgutil.walk_packages(captum_regioncam.__path__, "captum_regioncam."):
    # It runs, needs an extra that may not be installed, or takes seconds.
    if not module.name.endswith(("__main__", "crf", "app.page")):
        importlib.import_module(module.name)

KILLED = 137
STEPS = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")
outputs = {}


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


def command(arguments):
    """One process of a command; torchrun's have its handlers of signals at first."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if status := main(arguments):
        sys.exit(status)


def torchrun(arguments, workers, nodes, port):
    """What torchrun does, but that its processes are forks as well: on one of several nodes, or --standalone."""
    meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": f"localhost:{port}", "run_id": str(port or os.getpid())}
    config = LaunchConfig(nodes, nodes, workers, **meeting, max_restarts=0, start_method="fork")
    elastic_launch(config, command)(arguments)


def program(script, arguments):
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")


def start(folder, arguments, workers=1, nodes=1, port=0, killed_before=None, script=None):
    """Start a command, or a script, in a folder.

    Under torchrun where there are several workers, or several nodes, of which this is one; to be killed before one of
    its steps on disk.
    """
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - ended() closes them
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.chdir(folder)
            if killed_before is not None:
                killed_at(killed_before)
            if script is not None:
                program(script, arguments)
            elif workers > 1 or nodes > 1:
                torchrun(arguments, workers, nodes, port)
            else:
                command(arguments)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(bool(error.code))
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    outputs[pid] = out, err
    return pid


def ended(pid, wait):
    found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    if not found:
        return None
    texts = []
    for output in outputs.pop(pid):
        output.seek(0)
        texts.append(output.read().decode(errors="replace"))
        output.close()
    return [os.waitstatus_to_exitcode(status), *texts]


if __name__ == "__main__":
    torch.set_num_threads(1)
    narrow_networks()
    for line in sys.stdin:
        request, *options = json.loads(line)
        print(json.dumps(start(**options[0]) if request == "start" else ended(*options)), flush=True)
