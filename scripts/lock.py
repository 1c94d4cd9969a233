"""Write requirements/run.txt and requirements/dev.txt: every dependency with its hashes, and no address."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {
    "run.txt": (["build"], ["verify"]),
    "dev.txt": (["build", "test", "lint", "docs"], ["batch", "verify", "trace", "cluster"]),
}
"""Each file's dependency groups and extras."""
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--upgrade"]


def main() -> int:
    """Run uv once a file."""
    for name, (groups, extras) in LOCKS.items():
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *OPTIONS]
        for group in groups:
            command += ["--group", group]
        for extra in extras:
            command += ["--extra", extra]
        subprocess.run([*command, "pyproject.toml", "-o", f"requirements/{name}"], cwd=ROOT, check=True)  # noqa: S603
    return 0


if __name__ == "__main__":
    sys.exit(main())
