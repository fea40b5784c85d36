"""The way in: what a connection and a request may cost before anything has read them."""
