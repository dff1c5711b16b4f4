"""Puts ggml's sources into a cache folder and prints the path of the `ggml` folder.

ggml has no package of its own. The source distribution of llama-cpp-python carries it, so pip
fetches that archive from whatever index the user has configured; its hash is checked before any
of its code can run. Only the standard library and pip are used: this runs while CMake configures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "llama-cpp-python"
VENDOR_PREFIX = "vendor/llama.cpp/"


def default_cache() -> Path:
    """Folder shared by all checkouts and build trees of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "executorch-orchestrator"


def download(version: str, sha256: str, folder: Path) -> Path:
    """Downloads the source distribution into `folder` and returns its path.

    pip prepares the metadata of a source distribution even for a download. In
    `--require-hashes` mode it verifies the archive first, and without build isolation it uses the
    scikit-build-core that this project's own build requires anyway.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={version} --hash=sha256:{sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--no-build-isolation", "--require-hashes"),
        *("--no-binary", PACKAGE, "--dest", str(folder), "--requirement", str(requirements)),
    ]
    result = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        raise SystemExit(
            f"cannot download {PACKAGE}=={version}, which carries ggml's sources "
            f"(pip ended with {result.returncode}); give a local copy with "
            "-DGGML_SOURCE_DIR=<folder>, or use an installed ggml with "
            "-DORCHESTRATOR_USE_SYSTEM_GGML=ON"
        )
    return archives[0]


def extract(archive: Path, target: Path) -> None:
    """Extracts ggml and its licence from `archive` into `target`, without the archive's prefix."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, inside = member.name.partition("/" + VENDOR_PREFIX)
            if not member.isfile() or not (inside == "LICENSE" or inside.startswith("ggml/")):
                continue
            path = target / inside
            if ".." in path.parts:
                raise SystemExit(f"{archive.name} has an unsafe path: {member.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None, member.name
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
    if not (target / "ggml" / "CMakeLists.txt").is_file():
        raise SystemExit(f"{archive.name} has no {VENDOR_PREFIX}ggml/CMakeLists.txt")


def fetch(version: str, sha256: str, cache: Path) -> Path:
    """Returns the cached `ggml` folder, filling the cache first if need be.

    The folder appears by a rename, so an interrupted or a concurrent build never sees a half of it.
    """
    final = cache / f"ggml-{version}-{sha256[:12]}"
    if not final.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="ggml-") as scratch:
            tree = Path(scratch) / "tree"
            extract(download(version, sha256, Path(scratch)), tree)
            try:
                tree.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
    return final / "ggml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True, help=f"version of {PACKAGE}")
    parser.add_argument("--sha256", required=True, help="hash of its source distribution")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    print(fetch(arguments.version, arguments.sha256, arguments.cache))


if __name__ == "__main__":
    main()
