"""A folder of images to a published, verified ResNeXt classifier."""
