"""Become the program, with the same arguments, environment and process id."""
import os
import pathlib
import sys


def program():
    """In the installed package, or what `make` built in the source tree."""
    here = pathlib.Path(__file__).resolve().parent
    places = [here / "bin" / "minisgl", here.parents[1] / "build" / "minisgl"]
    for path in places:
        if os.access(path, os.X_OK):
            return path
    sys.exit(f"ERROR: the minisgl program is not in {' or '.join(map(str, places))}; `pip install .` in its source folder builds and installs it")


def main():
    path = str(program())
    os.execv(path, [path, *sys.argv[1:]])


if __name__ == "__main__":
    main()
