"""PyTorch's side: networks with random weights, and what they answer to real photos. Runs in an environment of its own.

    reference.py fixture FOLDER          the small network that the tests compare with
    reference.py networks FOLDER         ResNeXt-50 (32x4d) of torchvision and of timm
    reference.py loaded FILE FOLDER      torchvision's network with the weights of FILE, loaded with strict=True

Random weights give every image the same answer unless BatchNorm's statistics are those of images: they are taken from
photos here, and the head is scaled so that logits have a standard deviation of 2.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import timm
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

Array = NDArray[Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOS = ("coffee", "chelsea", "rocket", "astronaut")  # none is its own mirror image
SIZES = (192, 224, 288)
LOGITS_STD = 2.0
SMALL_WIDTH, SMALL_GROUPS, SMALL_CLASSES = 4, 2, 10
SMALL_SIZE = (64, 80)  # height and width differ, so that exchanging them is seen


def photo(name: str, height: int, width: int) -> Array:
    """Returns a photo, uint8 [height, width, 3] RGB."""
    image = Image.fromarray(getattr(skimage.data, name)())
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def batch(images: list[Array]) -> torch.Tensor:
    """Returns images as torchvision's networks take them: [N, 3, height, width], normalized."""
    values = torch.from_numpy(np.stack(images)).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


def randomize(net: nn.Module, images: torch.Tensor) -> nn.Module:
    """Draws scales and offsets, takes BatchNorm's statistics from the images, and scales the head."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None  # the mean of all batches
    nn.init.normal_(net.fc.weight)
    nn.init.normal_(net.fc.bias, 0, 0.1)
    with torch.no_grad():
        net.train()(images)
        net.eval()
        net.fc.weight *= LOGITS_STD / net(images).std()
    return net


def small() -> nn.Module:
    """Returns torchvision's own network with narrower and fewer layers: stem width 4, cardinality 2, base width 1."""
    net = ResNet(Bottleneck, [1, 1, 1, 1])
    net.conv1 = nn.Conv2d(3, SMALL_WIDTH, 7, 2, 3, bias=False)
    net.bn1 = nn.BatchNorm2d(SMALL_WIDTH)
    net.inplanes, net.groups, net.base_width = SMALL_WIDTH, SMALL_GROUPS, 16
    net.layer1 = net._make_layer(Bottleneck, SMALL_WIDTH, 2)
    for i, name in enumerate(("layer2", "layer3", "layer4"), start=1):
        setattr(net, name, net._make_layer(Bottleneck, SMALL_WIDTH * 2**i, 1, stride=2))
    net.fc = nn.Linear(SMALL_WIDTH * 8 * Bottleneck.expansion, SMALL_CLASSES)
    return net


def answers(net: nn.Module, images: torch.Tensor) -> tuple[Array, dict[str, Array]]:
    """Returns the logits [N, classes], and the output of every block as [N, height, width, channels]."""
    blocks: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            blocks[name] = output.permute(0, 2, 3, 1).numpy().copy()

        return hook

    hooks = [
        block.register_forward_hook(keep(f"stage{stage}_block{i}"))
        for stage in range(1, 5)
        for i, block in enumerate(getattr(net, f"layer{stage}"), start=1)
    ]
    with torch.no_grad():
        logits = net(images).numpy()
    for hook in hooks:
        hook.remove()
    return logits, blocks


def save(net: nn.Module, path: Path) -> None:
    """Writes the network's state as the hub has it."""
    save_file({name: values.contiguous() for name, values in net.state_dict().items()}, path, metadata={"format": "pt"})


def make_fixture(folder: Path) -> None:
    """Writes small.safetensors, photo.png, and answers.json with the logits and the mean of each block's channels."""
    torch.manual_seed(0)
    images = [photo(name, *SMALL_SIZE) for name in PHOTOS]
    net = randomize(small(), batch(images))
    rocket = images[PHOTOS.index("rocket")]
    Image.fromarray(rocket).save(folder / "photo.png")
    save(net, folder / "small.safetensors")
    logits, blocks = answers(net, batch([rocket]))
    found = {
        "made_with": f"torch {torch.__version__}, torchvision {torchvision.__version__}",
        "logits": logits[0].tolist(),
        "blocks": {name: values[0].mean(axis=(0, 1)).tolist() for name, values in blocks.items()},
    }
    (folder / "answers.json").write_text(json.dumps(found, indent=1) + "\n")


def make_networks(folder: Path) -> None:
    """Writes NAME.safetensors for both libraries, and NAME-SIZE.safetensors with images, logits and blocks."""
    makers = {"torchvision": torchvision.models.resnext50_32x4d, "timm": lambda: timm.create_model("resnext50_32x4d")}
    for seed, (name, make) in enumerate(makers.items()):
        torch.manual_seed(seed)
        net = randomize(make(), batch([photo(name, 224, 224) for name in PHOTOS]))
        save(net, folder / f"{name}.safetensors")
        for size in SIZES:
            images = np.stack([photo(name, size, size) for name in PHOTOS])
            logits, blocks = answers(net, batch(list(images)))
            save_arrays({"images": images, "logits": logits, **blocks}, folder / f"{name}-{size}.safetensors")
    sys.stdout.write(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}\n")


def answer_loaded(file: Path, folder: Path) -> None:
    """Writes loaded.safetensors: the logits of torchvision's network with a file's weights, for each size."""
    net = torchvision.models.resnext50_32x4d()
    net.load_state_dict(load_file(file), strict=True)
    net.eval()
    found = {}
    for size in SIZES:
        found[str(size)], _ = answers(net, batch([photo(name, size, size) for name in PHOTOS]))
    save_arrays(found, folder / "loaded.safetensors")


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {
        "fixture": make_fixture,
        "networks": make_networks,
        "loaded": answer_loaded,
    }
    commands[command](*map(Path, paths))
