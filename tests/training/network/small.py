"""A small architecture, which is built within a second."""

from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing

SMALL = Architecture(depths=(1, 1), cardinality=4, base_width=4, stem_width=16)
SIZE_32 = Preprocessing(height=32, width=32)
