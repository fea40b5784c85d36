"""`make sbom`: writes a bill of materials (CycloneDX, JSON) for each lock, by cyclonedx-py, whose path is the argument.

The files of others that lie in this repository are in it too: Swagger UI.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from supply.locks import ROOT, locks

OUT = ROOT / "build" / "sbom"
SWAGGER = ROOT / "app" / "api" / "page" / "swagger"

Json = dict[str, Any]  # Any: JSON


def main(program: str) -> int:
    """Writes `build/sbom/LOCK.cdx.json` for each lock; returns the exit status."""
    OUT.mkdir(parents=True, exist_ok=True)
    for lock in locks():
        options = ["requirements", str(lock), "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
        done = subprocess.run([program, *options, "--of=JSON"], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stderr)
            return 1
        file = OUT / f"{lock.stem}.cdx.json"
        file.write_text(json.dumps(with_vendored(json.loads(done.stdout)), indent=1) + "\n")
        print(f"{file.relative_to(ROOT)}")  # noqa: T201  a command's own output
    return 0


def with_vendored(bom: Json) -> Json:
    """Returns a bill of materials with Swagger UI added to its components."""
    return {**bom, "components": [*bom.get("components", ()), swagger_ui()]}


def swagger_ui() -> Json:
    """Returns the component of the files that `/docs` serves. Its version stands in the README beside them."""
    version = re.search(r"^Swagger UI (\S+) \(Apache-2\.0\)", (SWAGGER / "README.md").read_text())
    assert version
    purl = f"pkg:npm/swagger-ui-dist@{version[1]}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": "swagger-ui-dist",
        "version": version[1],
        "purl": purl,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "components": [
            {
                "type": "file",
                "name": file.relative_to(ROOT).as_posix(),
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(file.read_bytes()).hexdigest()}],
            }
            for file in sorted(SWAGGER.iterdir())
            if file.name != "README.md"  # ours
        ],
    }


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]))))
