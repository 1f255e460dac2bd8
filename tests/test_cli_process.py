import subprocess
import sys

from fdiff.cli import process


def test_keeping_memory_is_told_where_it_can_be():
    """In a process of its own, which stays as it is told."""
    code = "from fdiff.cli.process import keep_memory; print(keep_memory())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()
    assert told == str(sys.platform == "linux")


def test_no_c_library_to_tell(monkeypatch):
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: object())
    assert not process.keep_memory()
