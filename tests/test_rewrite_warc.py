"""WARC comes out as WARC: records that stay keep the bytes in which they lie, compressed or not; text files too."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest
from rewritten import pieces_of, read_piece, rewrite_file
from warc_files import http, page, record, write

from penstock import RequestError
from penstock.transforms import rewrite_warc
from penstock.transforms.inflate import decompress
from penstock.transforms.readers import list_files, split
from penstock.transforms.rewriters import check_format
from penstock.transforms.warc import frames

SHARED = Path(__file__).parents[2] / "shared" / "data"
RECORDS = [record(0, b"software: x\r\n", "warcinfo")]
for number in range(1, 9):
    RECORDS += [record(10 * number, b"GET / HTTP/1.1\r\n\r\n", "request"), record(number, http(page(number)))]
RECORDS += [record(99, http(b"gone", status=b"404 Not Found"))]
#: Which records are the documents that the reader meets.
DOCUMENTS = [*range(2, 17, 2), 17]


def left(gone: list[int]) -> list[bytes]:
    dropped = {DOCUMENTS[row] for row in gone}
    return [body for number, body in enumerate(RECORDS) if number not in dropped]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
@pytest.mark.parametrize("gone", [[], [0], [3, 4], [7], list(range(8))])
def test_records_that_stay_keep_their_bytes(tmp_path: Path, name: str, gone: list[int]) -> None:
    def pack(body: bytes) -> bytes:
        return gzip.compress(body, 1, mtime=0) if name.endswith("gz") else body

    path = write(tmp_path / name, *map(pack, RECORDS))
    done = rewrite_file(path, gone)
    assert done.body == b"".join(map(pack, left(gone)))
    assert (done.written, sum(met.others for met in done.met)) == (9 - len(gone), 9)
    assert done.set_aside == []


def test_members_that_hold_several_records_are_parted_where_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [RECORDS[:5], RECORDS[5:9], RECORDS[9:]]
    path = write(tmp_path / "a.warc.gz", *(gzip.compress(b"".join(group), 1, mtime=0) for group in groups))
    for held in (64 << 20, 300):
        monkeypatch.setattr(rewrite_warc, "HELD_BYTES", held)
        done = rewrite_file(path, [2])
        assert gzip.decompress(done.body) == b"".join(left([2]))
        if held > 300:
            assert done.body.startswith(gzip.compress(b"".join(groups[0]), 1, mtime=0))
            assert done.body.endswith(gzip.compress(b"".join(groups[2]), 1, mtime=0))
    assert rewrite_file(path).body == path.read_bytes()


def test_records_over_any_members_come_out_whole(tmp_path: Path) -> None:
    body = b"".join(RECORDS)
    blocks = [gzip.compress(body[at : at + 333]) for at in range(0, len(body), 333)]
    path = write(tmp_path / "a.warc.gz", *blocks)
    assert gzip.decompress(rewrite_file(path, [1, 5]).body) == b"".join(left([1, 5]))


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_damage_is_set_aside_and_what_lies_behind_it_is_written(tmp_path: Path, name: str) -> None:
    packed = [gzip.compress(body) if name.endswith("gz") else body for body in RECORDS]
    hurt = bytearray(packed[4])
    hurt[len(hurt) // 2] ^= 0xFF
    packed[4] = bytes(hurt) if name.endswith("gz") else packed[4][:-30]
    path = write(tmp_path / name, *packed)
    done = rewrite_file(path, [0])
    kept = list(frames(decompress(io.BytesIO(done.body), "gzip" if name.endswith("gz") else "none"), 1 << 20))
    expected = [body for number, body in enumerate(RECORDS) if number not in (2, 4)]
    assert [frame.body for frame in kept] == [body.removesuffix(b"\r\n\r\n") for body in expected]
    assert len(done.set_aside) == 1
    assert done.set_aside[0]["raw"]


def test_ranges_give_the_records_of_the_whole(tmp_path: Path) -> None:
    path = SHARED / "web_small.warc.gz"
    if not path.exists():
        pytest.skip("needs ../shared")
    (entry,) = list_files(str(path))
    chance = random.Random(2)
    (documents, _) = read_piece(pieces_of(path)[0])
    gone = [row for row in range(len(documents)) if documents[row] and chance.random() < 0.3]
    whole = rewrite_file(path, gone)
    ranges = rewrite_file(path, gone, task_bytes=200_000)
    assert len(split(entry, "warc", 200_000)) == len(ranges.bodies) > 3
    assert (ranges.body, ranges.places) == (whole.body, whole.places)
    assert whole.written == len(whole.places) - len(gone)
    assert rewrite_file(path, task_bytes=200_000).body == path.read_bytes()


def test_text_files_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for body in (b"plain\n", b"\xef\xbb\xbfmarked\r\n"):
        path.write_bytes(body)
        assert rewrite_file(path).body == body
        assert rewrite_file(path, [0]).body == b""
    assert rewrite_file(path, cuts={0: [(0, 2), (6, 8)]}).body == b"\xef\xbb\xbfrked"
    for body, said in ((b" \n", ("read/empty", None)), (b"\xff", (None, "the file is not valid UTF-8"))):
        path.write_bytes(body)
        done = rewrite_file(path)
        assert (done.body, done.written) == (b"", 0)
        assert [(row["rule"], row["error"], row["raw"]) for row in done.set_aside] == [(*said, body)]
    path.write_bytes(b"")
    assert rewrite_file(path).places == []


def test_what_a_container_has_no_place_for_is_refused() -> None:
    for kind in ("warc", "wet", "text"):
        with pytest.raises(RequestError, match="an annotation has no place: --format jsonl or --format parquet"):
            check_format(kind, "web", annotate=True, cuts=False)
    for kind in ("warc", "wet"):
        with pytest.raises(RequestError, match="whose records are not edited: --format"):
            check_format(kind, "web", annotate=False, cuts=True)
    check_format("text", "web", annotate=False, cuts=True)
    check_format("parquet", "web", annotate=True, cuts=True)
