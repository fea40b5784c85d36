"""Image files to pixels: the one decode that training and serving share."""
