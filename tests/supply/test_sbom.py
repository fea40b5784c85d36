import hashlib

from supply.locks import ROOT
from supply.sbom import SWAGGER, swagger_ui, with_vendored


def test_the_vendored_files_are_in_it_with_their_hashes() -> None:
    bom = with_vendored({"bomFormat": "CycloneDX", "components": [{"name": "pillow"}]})
    pillow, swagger = bom["components"]
    assert (pillow["name"], bom["bomFormat"]) == ("pillow", "CycloneDX")
    assert swagger == swagger_ui()
    assert swagger["purl"] == f"pkg:npm/swagger-ui-dist@{swagger['version']}"
    files = {file["name"]: file["hashes"][0]["content"] for file in swagger["components"]}
    assert len(files) == len(list(SWAGGER.iterdir())) - 1  # the README is ours
    for name, digest in files.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest


def test_the_version_is_that_of_the_script() -> None:
    assert f'"{swagger_ui()["version"]}"' in (SWAGGER / "swagger-ui-bundle.js").read_text()
