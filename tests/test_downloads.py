"""What a faulty Hub sends, and what becomes of it. Nothing here waits: the pauses are written down."""

import hashlib
import time

import pytest

from fdiff import DDIMScheduler, downloads, hub
from tests.fake_hub import FakeHub, breaking, busy, garbage, silent, stalling
from tests.logs import logged

FILE = "model.safetensors"
DATA = bytes(range(256)) * 4


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture(autouse=True)
def repository(fake: FakeHub, monkeypatch):
    from huggingface_hub import constants

    fake.add("me/toy", {FILE: DATA, "config.json": DATA})
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 128)  # what has come as a whole chunk is kept
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)


def fetch(filename: str = FILE, **options) -> bytes:
    return hub.fetch(hub.Source("me/toy", **options), filename).read_bytes()


@pytest.mark.parametrize("filename", [FILE, "config.json"])
def test_garbage_of_the_right_length_is_sent_again(fake: FakeHub, filename):
    fake.faults[f"GET {filename}"] = [garbage]
    assert fetch(filename) == DATA
    assert fake.downloads() == [filename] * 2


@pytest.mark.parametrize("filename", [FILE, "config.json"])
def test_garbage_does_not_stay_in_the_cache(fake: FakeHub, filename, tmp_path):
    fake.faults[f"GET {filename}"] = [garbage, garbage]
    with pytest.raises(OSError, match=f"{filename} of me/toy could not be downloaded .it came twice with another con"):
        fetch(filename)
    assert not [path for path in (tmp_path / "cache").rglob("*") if "blobs" in str(path) and path.is_file()]
    with pytest.raises(ConnectionError, match="is not in the cache"):
        fetch(filename, local_files_only=True)
    assert fetch(filename) == DATA


def test_the_hash_is_taken_once(fake: FakeHub, monkeypatch):
    fetch()
    monkeypatch.setattr(downloads, "is_stated", lambda *_: pytest.fail("a file of the cache is read twice"))
    for options in ({}, {"local_files_only": True}, {"revision": fake.commit("me/toy", "main")}):
        assert fetch(**options) == DATA


def test_force_download_mends_the_cache(fake: FakeHub):
    damaged = hub.fetch(hub.Source("me/toy"), FILE)
    damaged.resolve().write_bytes(b"x" * len(DATA))
    assert fetch() == b"x" * len(DATA), "what is in the cache is not read through at every load"
    assert fetch(force_download=True) == fetch() == DATA
    with pytest.raises(ValueError, match="force_download needs the network; unset HF_HUB_OFFLINE"):
        fetch(force_download=True, local_files_only=True)


@pytest.mark.parametrize("filename", [FILE, "config.json"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_goes_on_or_begins_anew(fake: FakeHub, pauses, filename, ranges):
    fake.ranges = ranges
    fake.faults[f"GET {filename}"] = [breaking, breaking]
    assert fetch(filename) == DATA
    assert fake.downloads() == [filename] * (2 if ranges else 3)


@pytest.mark.parametrize("filename", [FILE, "config.json"])
def test_a_file_that_changes_between_two_halves_is_not_spliced(fake: FakeHub, pauses, filename):
    new = bytes(255 - byte for byte in DATA)

    def breaking_and_changing(handler, data, headers):
        breaking(handler, data, headers)
        fake.repositories["me/toy"]["main"][filename] = new

    fake.faults[f"GET {filename}"] = [breaking_and_changing]
    assert fetch(filename) == new


@pytest.mark.parametrize("request_", ["HEAD", "GET"])
def test_a_busy_hub_is_asked_again_after_growing_pauses(fake: FakeHub, pauses, request_):
    fake.faults[f"{request_} {FILE}"] = [busy(503), busy(500), busy(429, Retry_After="30")]
    with logged(f"{FILE} of me/toy: .*; trying again in"):
        assert hub.fetch(hub.Source("me/toy"), FILE).read_bytes() == DATA
    assert pauses[:2] == [1, 2] and pauses[2] in (30, 31)


@pytest.mark.parametrize("request_", ["HEAD", "GET"])
def test_a_hub_that_stays_busy_is_given_up(fake: FakeHub, pauses, request_):
    fake.faults[f"{request_} {FILE}"] = [busy(503)] * 5
    with pytest.raises(ConnectionError, match=f"{FILE} of me/toy could not be downloaded: .* is busy; try again later"):
        fetch()
    assert pauses == list(downloads.PAUSES)
    assert fetch() == DATA


@pytest.mark.parametrize("request_", ["HEAD", "GET"])
@pytest.mark.parametrize("headers", [{"Retry_After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}])
def test_nobody_sleeps_for_an_hour(fake: FakeHub, pauses, request_, headers):
    fake.faults[f"{request_} {FILE}"] = [busy(429, **headers)]
    with pytest.raises(ConnectionError, match="asks to wait 3600 s; try again after that"):
        fetch()
    assert pauses == []


def test_a_cached_file_does_where_the_hub_is_busy_or_silent(fake: FakeHub, pauses):
    fetch()
    for fault in (busy(503), busy(429, Retry_After="3600"), silent):
        fake.faults[f"HEAD {FILE}"] = [fault]
        assert fetch() == DATA
    assert pauses == []


def test_a_silent_hub_is_given_up(fake: FakeHub, pauses):
    fake.faults[f"HEAD {FILE}"] = [silent]
    with pytest.raises(ConnectionError, match=f"{FILE} of me/toy is not in the cache; .* could not be reached"):
        fetch()
    assert pauses == []


def test_who_was_there_before_is_waited_for(fake: FakeHub, pauses):
    fake.faults[f"HEAD {FILE}"] = [silent]
    assert fetch(revision=fake.commit("me/toy", "main")) == DATA
    assert pauses == [1]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_stalled_connection_has_an_end(fake: FakeHub, pauses, ranges):
    fake.ranges = ranges
    fake.faults[f"GET {FILE}"] = [stalling] * 50
    if ranges:
        assert fetch() == DATA
    else:
        with pytest.raises(OSError, match=f"{FILE} of me/toy could not be downloaded .the connection broke 6 times"):
            fetch()
    assert len(fake.downloads()) < 10


def test_what_can_be_no_repository_costs_no_request(fake: FakeHub, pauses, tmp_path):
    for name in ("./my_modle", "../my_modle", "/data/x", "~/my_modle", "a/b/c", "C:\\models\\x", str(tmp_path / "no")):
        with pytest.raises(FileNotFoundError, match="is neither a folder nor the id of a repository"):
            hub.load_config(name, "config.json")
    assert fake.requests == pauses == []


def test_a_mistyped_folder_costs_one_request(fake: FakeHub, pauses, monkeypatch):
    from huggingface_hub import constants

    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(ConnectionError, match=r"of my_modle is not .* correct the name if a folder was meant"):
        hub.load_config("my_modle", "config.json")
    assert pauses == []


def test_a_busy_listing_is_asked_again(fake: FakeHub, pauses):
    fake.add("me/pipe", {"model_index.json": b"{}", "unet/config.json": b"{}"})
    fake.faults["GET revision"] = [busy(503)]
    with logged("the files of me/pipe: .*; trying again in 1 s"):
        assert hub.has_folder("me/pipe", "unet")


def test_an_upload_to_a_faulty_hub(fake: FakeHub, pauses, monkeypatch):
    """A busy Hub is asked again, a silent one and one that wants an hour are given up."""
    fake.token = "secret"
    scheduler = DDIMScheduler()
    fake.faults["POST api/repos/create"] = [busy(503), busy(502)]
    with logged("me/ddim: .*; trying again in"):
        scheduler.push_to_hub("me/ddim")
    assert pauses == [1, 2] and "scheduler_config.json" in fake.repositories["me/ddim"]["main"]
    fake.faults["POST api/models/me/ddim/commit/main"] = [busy(429, Retry_After="3600")]
    with pytest.raises(OSError, match=r"me/ddim was not uploaded .the Hub asks to wait 3600 s"):
        scheduler.push_to_hub("me/ddim")
    monkeypatch.setattr(downloads, "SILENCE", 0.2)
    fake.faults["POST api/repos/create"] = [silent]
    with pytest.raises(OSError, match=r"me/ddim was not uploaded .*timed out"):
        scheduler.push_to_hub("me/ddim")


def test_hashes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(DATA)
    good = [
        hashlib.sha256(DATA).hexdigest(),
        hashlib.sha1(DATA).hexdigest(),
        hashlib.sha1(b"blob 1024\0" + DATA).hexdigest(),
    ]
    assert all(downloads.is_stated(file, etag) for etag in [*good, None, "W/abc", "d41d8cd98f00b204e9800998ecf8427e-5"])
    assert not any(downloads.is_stated(file, etag[::-1]) for etag in good)
