"""Loads the weights that a run starts from into its network."""

from training.contract.manifest import WEIGHTS_FILE
from training.contract.repository import ModelRepository
from training.network import resnext
from training.network.runtime import keras
from training.runs.source import Source
from training.weights.store import WeightsStore

HEAD = "logits"


def load_source(
    model: keras.Model, source: Source, labels: list[str], repository: ModelRepository, weights: WeightsStore
) -> None:
    """Gives `model` the weights of `source`, without the last layer's where the labels differ.

    The input size may differ: the network is convolutional up to its pooling. Raises WeightsError, ContractError.
    """
    with_head = source.labels == labels
    if source.weights:
        from training.network.published_weights import load_published

        load_published(model, weights.verified_file(source.weights), head=with_head)
        return
    assert source.model
    assert source.version
    # a second network: loading into `model`, which has an optimizer, makes Keras warn about the optimizer's variables
    other = resnext.build(source.architecture, source.preprocessing, len(source.labels))
    other.load_weights(ModelRepository(repository.root, source.model).path(source.version) / WEIGHTS_FILE)
    for layer in model.layers:
        if layer.name != HEAD or with_head:
            layer.set_weights(other.get_layer(layer.name).get_weights())
