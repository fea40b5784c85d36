"""Compares our network with torchvision's and timm's, which run in an environment of their own: `make parity-torch`."""
