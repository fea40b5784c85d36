"""Published weights: the folder that keeps them, what is known of those on the hub, how files come in and go out."""
