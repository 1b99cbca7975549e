"""Build backend of `pip install .` (PEP 517), of the standard library alone: runs make and packs the program, its models and, where it was
built, its shared objects into a wheel. The layout is that of `make install`, below the package: bin/, lib/minisgl/, share/minisgl/."""
import base64
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "minisgl"


def version():
    return re.search(r'MINISGL_VERSION "([^"]+)"', (ROOT / "src/version.h").read_text()).group(1)


def tag():
    """Any Python 3, this kind of machine."""
    return "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())


def metadata():
    return (f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version()}\nSummary: LLM serving in C: the OpenAI API from one native program\n"
            f"Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{(ROOT / 'README.md').read_text()}")


def build():
    """The program as `make` leaves it; what make says is shown only when it fails."""
    r = subprocess.run(["make", f"-j{os.cpu_count() or 1}", "all"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        sys.exit(f"{r.stdout[-4000:]}\nERROR: make failed; `./run` in {ROOT} installs the Debian packages that the build needs")


def contents():
    """(name in the wheel, file, executable) of everything that it carries."""
    for path in sorted((ROOT / "python" / NAME).glob("*.py")):
        yield f"{NAME}/{path.name}", path, False
    yield f"{NAME}/bin/minisgl", ROOT / "build/minisgl", True
    for path in sorted((ROOT / "build").glob("minisgl_*.so")):
        yield f"{NAME}/lib/minisgl/{path.name}", path, True
    for path in sorted((ROOT / "models").rglob("*")):
        inside = path.relative_to(ROOT / "models")
        if path.is_file() and inside.parts[0] != "builtin-src":
            yield f"{NAME}/share/minisgl/models/{inside.as_posix()}", path, False


class Wheel:
    def __init__(self, path):
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.record = []

    def add(self, name, data, executable=False):
        info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        info.external_attr = (0o100755 if executable else 0o100644) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(info, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self.record.append(f"{name},sha256={digest},{len(data)}\n")

    def close(self, info):
        name = f"{info}/RECORD"
        self.record.append(f"{name},,\n")
        self.zip.writestr(name, "".join(self.record))
        self.zip.close()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    build()
    file = f"{NAME}-{version()}-{tag()}.whl"
    info = f"{NAME}-{version()}.dist-info"
    wheel = Wheel(pathlib.Path(wheel_directory) / file)
    for name, path, executable in contents():
        wheel.add(name, path.read_bytes(), executable)
    wheel.add(f"{info}/METADATA", metadata().encode())
    wheel.add(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: minisgl\nRoot-Is-Purelib: false\nTag: {tag()}\n".encode())
    wheel.add(f"{info}/entry_points.txt", f"[console_scripts]\n{NAME} = {NAME}.__main__:main\n".encode())
    wheel.close(info)
    return file


def build_sdist(sdist_directory, config_settings=None):
    """The files that git knows."""
    base = f"{NAME}-{version()}"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    with tarfile.open(pathlib.Path(sdist_directory) / f"{base}.tar.gz", "w:gz") as tar:
        for name in filter(None, listed):
            tar.add(ROOT / name, f"{base}/{name}", recursive=False)
        info = pathlib.Path(sdist_directory) / "PKG-INFO"
        info.write_text(metadata())
        tar.add(info, f"{base}/PKG-INFO")
        info.unlink()
    return f"{base}.tar.gz"
