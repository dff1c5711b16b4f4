"""A headless Chromium that opens local files, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless",
    "--no-sandbox",  # for root, as in containers
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(
            f"the program {name} is missing: install the package {package} (Debian: "
            f"apt-get install {package})"
        )
    return found


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A browser with an empty profile in a folder; closed at the end.

    Raises:
        RuntimeError: Chromium or its driver is not installed; names the package.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With a path given, selenium does not look for a driver on the network.
    service = Service(_program("chromedriver", "chromium-driver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()
