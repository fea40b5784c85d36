"""ResNeXt-50 (32x4d) in plain PyTorch, trained as its documentation advises. Runs in an environment of its own.

Prints what it is as one JSON line. Then, for each line on stdin, takes as many steps as the line says and prints their
seconds and the last loss. Channels last, one thread a core, autocast for bfloat16, the fused optimizer.
"""

import argparse
import json
import os
import sys
import time

import torch
from torch import nn


class Block(nn.Module):
    """A block: 1x1 reduce, 3x3 in 32 groups, 1x1 expand, plus the shortcut."""

    def __init__(self, channels: int, width: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=32, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, filters, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.relu(self.norm2(self.conv2(y)))
        return self.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def resnext50(classes: int) -> nn.Module:
    """Returns the network of the paper's table, in torchvision's layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            width, stride = 128 * 2**stage, 2 if stage and block == 0 else 1
            layers.append(Block(channels, width, 2 * width, stride))
            channels = 2 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def say(line: dict[str, object]) -> None:
    """Writes a line to the benchmark."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Trains on one random batch each time a line asks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), required=True)
    parser.add_argument("--compile", action="store_true", help="torch.compile, with its default backend")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = resnext50(options.classes).to(device, memory_format=torch.channels_last)
    if options.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, fused=True)  # Keras' epsilon
    else:
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True, fused=True)
    criterion = nn.CrossEntropyLoss()
    forward = torch.compile(network) if options.compile else network
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size).to(device, memory_format=torch.channels_last)
    labels = torch.randint(options.classes, (options.batch,)).to(device)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = criterion(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    parameters = sum(p.numel() for p in network.parameters())
    say({"version": f"torch {torch.__version__}", "parameters": parameters})
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        last = loss.item()  # waits for a GPU
        say({"seconds": time.perf_counter() - start, "loss": last})


if __name__ == "__main__":
    main()
