"""Types of the command line's parser."""

from __future__ import annotations

import argparse
from typing import TypeAlias

# What each command adds its parser to.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
