"""Loads the weights that a run starts from into its network."""

from training.contract.manifest import WEIGHTS_FILE
from training.contract.repository import ModelRepository
from training.network import resnext
from training.network.published_weights import OUR_HEAD, load_published
from training.network.runtime import keras
from training.runs.source import Source
from training.weights.store import WeightsError, WeightsStore
from training.weights.tensors import open_tensors


def load_source(
    model: keras.Model, source: Source, labels: list[str], repository: ModelRepository, weights: WeightsStore
) -> None:
    """Gives `model` the weights of `source`, without the last layer's where the labels differ.

    The input size may differ: the network is convolutional up to its pooling. Raises WeightsError, ContractError.
    """
    with_head = source.labels == labels
    if source.weights:
        path = weights.verified_file(source.weights)
        if weights.record(source.weights).sha256 != source.backbone:
            raise WeightsError(f"{path} is another file than the one that this run began with")
        with open_tensors(path) as tensors:
            load_published(model, tensors, head=with_head)
        return
    assert source.model
    assert source.version
    # a second network: loading into `model`, which has an optimizer, makes Keras warn about the optimizer's variables
    other = resnext.build(source.architecture, source.preprocessing, len(source.labels))
    other.load_weights(ModelRepository(repository.root, source.model).path(source.version) / WEIGHTS_FILE)
    for layer in model.layers:
        if layer.name != OUR_HEAD or with_head:
            layer.set_weights(other.get_layer(layer.name).get_weights())
