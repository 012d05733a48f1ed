"""IDX files, MNIST, and its download: golden numbers of the real files, and every way a file can be broken."""

import gzip
import hashlib
import http.server
import shutil
import struct
import threading

import pytest
import torch

from functrain import data
from functrain.data import mnist_files
from functrain.data.mnist_files import FILES, fetch
from functrain.errors import CorruptFile, DownloadFailed, InvalidArgument, MissingData


def idx(code, shape, payload):
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + payload


SMALL = idx(8, (2, 3), bytes(range(6)))
ZIPPED = gzip.compress(SMALL, mtime=0)  # the clock in it would be part of the names of tests

# IDX files


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("code", "letter", "dtype", "values"),
    [
        (0x08, "B", torch.uint8, [0, 1, 255]),
        (0x09, "b", torch.int8, [0, -1, 127]),
        (0x0B, "h", torch.int16, [0, -2, 300]),
        (0x0C, "i", torch.int32, [0, -2, 70_000]),
        (0x0D, "f", torch.float32, [0.5, -2.0, 1e10]),
        (0x0E, "d", torch.float64, [0.1, -2.0, 1e100]),
    ],
)
def test_every_type_reads_back(tmp_path, pack, code, letter, dtype, values):
    path = tmp_path / "array"
    path.write_bytes(pack(idx(code, (3, 1), struct.pack(f">3{letter}", *values))))
    assert torch.equal(data.read_idx(path), torch.tensor(values, dtype=dtype).view(3, 1))


def test_an_array_without_rows(tmp_path):
    path = tmp_path / "none"
    path.write_bytes(idx(8, (0, 3), b""))
    assert data.read_idx(path).shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file.*got nothing"),
        (b"\0\0", "got 00 00"),
        (b"PK\3\4 and so on", "which begins with the bytes 00 00.*got 50 4b 03 04"),
        (bytes([0, 0, 7, 1]) + SMALL[4:], "got 00 00 07 01"),
        (bytes([0, 0, 8, 0]), "got 00 00 08 00"),
        (SMALL[:9], "truncated: expected a header of 12 bytes, got 9"),
        (SMALL[:-1], r"truncated: its header says uint8\(2, 3\), 18 bytes in all, got 17"),
        (SMALL + b"\0", "bytes follow the data: .* 18 bytes in all, got 19"),
        (ZIPPED[:-9], "expected a whole gzip file, got one that is truncated or altered"),
        (ZIPPED[:-8] + b"12345678", "truncated or altered"),
        (ZIPPED[:12] + b"\xff" + ZIPPED[13:], "truncated or altered"),
        (ZIPPED[:5], "truncated or altered"),
    ],
    ids=range(12),
)
def test_files_that_are_broken(tmp_path, content, message):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


def test_no_cut_of_a_file_is_read(tmp_path):
    path = tmp_path / "cut"
    for whole in (SMALL, ZIPPED):
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(CorruptFile):
                data.read_idx(path)


def test_the_checksum_is_of_the_uncompressed_bytes(tmp_path):
    path, md5 = tmp_path / "array", hashlib.md5(SMALL).hexdigest()
    for content in (SMALL, ZIPPED):
        path.write_bytes(content)
        assert data.read_idx(path, md5).tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(SMALL[:-1] + b"\6")
    with pytest.raises(
        CorruptFile, match=f"expected MD5 {md5} of the uncompressed bytes, got .* over 18 bytes; delete"
    ):
        data.read_idx(path, md5)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        data.read_idx(tmp_path / "none")


# MNIST


def test_the_numbers_of_the_lesson(mnist_pair):
    train, valid = mnist_pair
    assert repr(train) == "ArrayDataset(50,000 rows of (float32(784,), int64()))" and len(valid) == 10_000
    normalize = data.fit_normalizer(train)
    assert round(float(normalize.mean), 5) == 0.13045 and round(float(normalize.std), 5) == 0.30729
    x = normalize(valid.arrays[0])
    assert round(float(x.mean()), 4) == -0.0059 and round(float(x.std()), 4) == 0.9924
    assert train.arrays[1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert valid.arrays[1].bincount().tolist() == [991, 1064, 990, 1030, 983, 915, 967, 1090, 1009, 961]


def test_the_test_files_as_images(mnist_folder):
    test = data.mnist_test(mnist_folder, scale=255, flat=False)
    x, y = test.arrays
    assert x.shape == (10_000, 1, 28, 28) and float(x.max()) == 1.0 and float(x.min()) == 0.0
    assert y[:5].tolist() == [7, 2, 1, 0, 4]


def test_missing_files_say_how_to_get_them(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(MissingData, match=r"has no train-images-idx3-ubyte \(nor gzipped.*download=True.*amazonaws"):
        data.mnist(tmp_path)
    with pytest.raises(MissingData, match="no t10k-images-idx3-ubyte and no t10k-labels-idx1-ubyte"):
        data.mnist_test(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train-labels-idx1-ubyte"]


def test_an_altered_file_is_not_read(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(SMALL)
    with pytest.raises(CorruptFile, match="train-images-idx3-ubyte: truncated or altered: expected MD5 6bbc9ace"):
        data.mnist(tmp_path)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), None, "255", True])
def test_scales_that_are_none(tmp_path, scale):
    with pytest.raises(InvalidArgument, match="scale must be a positive number, such as 256 or 255, got"):
        data.mnist(tmp_path, scale=scale)


# The download


@pytest.fixture
def served(tmp_path):
    """A folder that a server on this machine serves, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *rest):
            super().__init__(*rest, directory=str(folder))

        def log_message(self, *_):
            pass

        def copyfile(self, source, output):
            content = source.read()
            output.write(content[:-5] if "cut" in self.path else content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_fetch_brings_a_whole_file(served, tmp_path):
    folder, address = served
    (folder / "a.gz").write_bytes(ZIPPED)
    path = tmp_path / "new" / "folder" / "a.gz"
    fetch(address + "a.gz", path, hashlib.md5(SMALL).hexdigest())
    assert data.read_idx(path).shape == (2, 3) and [file.name for file in path.parent.iterdir()] == ["a.gz"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.gz", None, DownloadFailed, r"could not download http.*none\.gz to .*404.*copy the file there yourself"),
        ("cut.gz", ZIPPED, DownloadFailed, "IncompleteRead"),
        ("short.gz", ZIPPED[:-5], CorruptFile, r"what came from http.*short\.gz is no whole gzip file"),
        ("other.gz", gzip.compress(SMALL[::-1], mtime=0), CorruptFile, r"http.*other\.gz: .* expected MD5"),
        ("page.gz", b"<html>log in</html>", CorruptFile, "expected MD5"),
    ],
)
def test_what_fetch_cannot_use_leaves_nothing(served, tmp_path, name, content, error, message):
    folder, address = served
    if content is not None:
        (folder / name).write_bytes(content)
    path = tmp_path / "new" / name
    with pytest.raises(error, match=message):
        fetch(address + name, path, hashlib.md5(SMALL).hexdigest())
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.gz", "nowhere", "file:///no/such/file.gz"])
def test_no_server(tmp_path, url):
    with pytest.raises(DownloadFailed, match="could not download"):
        fetch(url, tmp_path / "a.gz", "")


def test_a_place_that_cannot_be_written(served, tmp_path):
    folder, address = served
    (folder / "a.gz").write_bytes(ZIPPED)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadFailed, match="could not download"):
        fetch(address + "a.gz", tmp_path / "file" / "a.gz", hashlib.md5(SMALL).hexdigest())
    assert (tmp_path / "file").read_text() == "in the way"


def test_mnist_is_downloaded_once_and_only_when_asked(served, tmp_path, mnist_folder, monkeypatch):
    folder, address = served
    for name in FILES:
        if name.startswith("t10k"):
            shutil.copy(mnist_folder / f"{name}.gz", folder)
    root = tmp_path / "root"
    with pytest.raises(MissingData):
        data.mnist_test(root, base_url=address)
    assert not root.exists()
    first = data.mnist_test(root, download=True, base_url=address)
    assert sorted(file.name for file in root.iterdir()) == [f"{n}.gz" for n in sorted(FILES) if n.startswith("t10k")]
    monkeypatch.setattr(mnist_files, "fetch", None)
    assert torch.equal(data.mnist_test(root, download=True, base_url=address).arrays[0], first.arrays[0])
