"""Timing plans on this machine: which to try, which is fastest, and what is learnt from it."""
