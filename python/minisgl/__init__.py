"""minisgl is a native program; this package only carries it: `python -m minisgl ...` and `minisgl ...` run it."""
