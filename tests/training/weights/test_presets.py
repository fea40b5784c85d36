import pytest

from training.weights.licences import is_noncommercial
from training.weights.presets import PRESETS, PresetError, imagenet_labels, preset_named


def test_a_preset_says_what_images_go_through() -> None:
    tv = preset_named("tv_in1k").preprocessing()
    assert (tv.resize_mode, tv.resize, tv.height, tv.width, tv.interpolation) == ("crop", 256, 224, 224, "bilinear")
    assert (tv.mean, tv.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert preset_named("tv_in1k").hub == "timm/resnext50_32x4d.tv_in1k"
    a1h = preset_named("a1h_in1k")
    assert [(p.height, p.resize, p.interpolation) for p in (a1h.preprocessing(), a1h.preprocessing(288))] == [
        (224, 235, "bicubic"),
        (288, 288, "bicubic"),
    ]


def test_a_size_or_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(PresetError, match="'tv_in1k' is known for images of 224 pixels, got 288"):
        preset_named("tv_in1k").preprocessing(288)
    with pytest.raises(PresetError, match="there is no preset 'tv_1k'; there are: tv_in1k, tv2_in1k, a1h_in1k"):
        preset_named("tv_1k")


def test_every_preset_resizes_to_at_least_its_crop() -> None:
    assert len(PRESETS) == 10
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert all(short >= size for size, short in preset.resize.items())
        assert is_noncommercial(preset.licence) == name.startswith("fb_")


def test_imagenet_has_a_thousand_different_labels() -> None:
    labels = imagenet_labels()
    assert len(set(labels)) == len(labels) == 1000
    assert all(label and label == label.strip() for label in labels)
    assert (labels[0], labels[281], labels[967], labels[999]) == ("tench", "tabby", "espresso", "toilet tissue")
