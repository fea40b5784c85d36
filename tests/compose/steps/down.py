from tests.compose.engine import compose


def down() -> None:
    compose("--profile", "*", "down", "--volumes", "--remove-orphans")
