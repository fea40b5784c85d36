"""What a request passes on its way in: authentication, limits, admission, body."""
