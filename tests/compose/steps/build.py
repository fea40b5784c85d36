from tests.compose.engine import compose, docker, say


def build() -> None:
    compose("--profile", "*", "build")
    say(docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}", "resnext-*:cpu"))
