"""Python environments with the packages of the programs that Camshaft is compared with."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with(name, packages):
    """The Python of `target/NAME`, which is made if it is not there. Ends the program if that fails."""
    venv = ROOT / "target" / name
    python = venv / "bin" / "python"
    if python.exists():
        return python
    print(f"installing the peers' packages into target/{name} …", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", *packages], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(venv, ignore_errors=True)
        sys.exit(f"the peers' packages can't be had here ({error}); nothing was compared")
    return python


def run_with(name, packages):
    """Goes on in the Python of `target/NAME`: starts the running script there, with its arguments."""
    python = python_with(name, packages)
    if Path(sys.prefix).resolve() != (ROOT / "target" / name).resolve():
        os.execv(python, [str(python), *sys.argv])
