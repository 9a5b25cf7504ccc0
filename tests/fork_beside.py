"""Run by test_turns.py: forks while another thread attributes or finds stages, and prints what the children find."""

import faulthandler
import os
import select
import signal
import threading

import torch
from torch import nn

from captum_regioncam import LayerRegionCam, find_stages


class Net(nn.Module):
    """A network whose answer depends on its mode, and that can be made to stop in the middle."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()
        self.fc = nn.Linear(6, 3)
        self.middle = lambda: None

    def forward(self, x):
        x = self.relu1(self.conv1(x))
        self.middle()
        x = self.relu2(self.conv2(x))
        return self.fc((x.sin() if self.training else x).mean((2, 3)))


torch.set_num_threads(1)  # a forked process cannot use OpenMP's threads
torch.manual_seed(0)
net, x = Net().train(), torch.randn(2, 3, 32, 32)
net.conv2.eval()
layers = [net.relu1, net.relu2]
working = threading.Event()


def report():
    """What a process can see of the network: its map, its stages, its modes and its hooks."""
    attribution = LayerRegionCam(net, layers).attribute(x, 1)
    modes = [module.training for module in net.modules()]
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())
    return f"{attribution.double().sum():.9f} {list(find_stages(net, x))} {modes} {hooks}"


def in_child():
    """Fork, and return what the child reports."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        net.middle = lambda: None
        faulthandler.dump_traceback_later(20, exit=True)
        os.write(write, report().encode())
        os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], 30)
    answer = os.read(read, 9999).decode() if ready else ""
    os.close(read)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return answer or "no answer"


def fork_at_random():
    """Fork 30 times while another thread attributes all the time."""
    done = threading.Event()

    def attribute():
        while not done.is_set():
            LayerRegionCam(net, layers).attribute(x, 2)
            working.set()

    thread = threading.Thread(target=attribute)
    thread.start()
    working.wait()
    answers = [in_child() for _ in range(30)]
    done.set()
    thread.join()
    return answers


def fork_in_the_middle(work):
    """Fork once while another thread is in the middle of a forward pass."""
    resume = threading.Event()
    working.clear()
    net.middle = lambda: (working.set(), resume.wait())
    thread = threading.Thread(target=work)
    thread.start()
    working.wait()
    answer = in_child()
    resume.set()
    thread.join()
    net.middle = lambda: None
    return answer


if __name__ == "__main__":
    expected = report()
    print(f"alone: {expected}")
    answers = {
        "beside attribute": fork_at_random(),
        "in the middle of attribute": [fork_in_the_middle(lambda: LayerRegionCam(net, layers).attribute(x, 2))],
        "in the middle of find_stages": [fork_in_the_middle(lambda: find_stages(net, x))],
        "afterwards": [report()],
    }
    for when, of_children in answers.items():
        print(f"{when}: {[answer for answer in of_children if answer != expected] or 'all the same'}")
