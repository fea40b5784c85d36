"""An image file to pixels: the one decode, which training and serving share."""
