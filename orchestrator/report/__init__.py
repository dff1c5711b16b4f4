"""Reports: what went where and why, as data, and how to show it."""
