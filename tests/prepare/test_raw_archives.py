"""Archives are read where they are, and hostile ones are refused."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from official_archives import write_files, write_tar, write_zip

from dig_jax.errors import InputError
from dig_jax.prepare.archives import open_files, read_tar_stream

FILES = {"b/two.bin": b"22", "a/one.bin": b"1", "three.bin": b"", "b/c/four": b"4444"}


def make_source(kind, tmp_path, files):
    if kind == "folder":
        return write_files(tmp_path / "files", files)
    write = write_zip if kind == "zip" else write_tar
    return write(tmp_path / f"files.{kind}", files)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_files_are_read_as_they_are_in_any_order(kind, tmp_path):
    source = make_source(kind, tmp_path, FILES)
    files = open_files(source)
    assert files.kind == kind
    assert dict(files.read()) == FILES
    assert list(files.names) == sorted(FILES)
    assert list(files.take([2, 0]).read()) == [
        ("b/two.bin", b"22"),
        ("a/one.bin", b"1"),
    ]
    assert dict(files.under("b").read()) == {"b/two.bin": b"22", "b/c/four": b"4444"}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_hidden_files_are_passed_over(kind, tmp_path):
    hidden = {".DS_Store": b"x", "a/.one": b"x", "__MACOSX/a/one": b"x"}
    source = make_source(kind, tmp_path, FILES | hidden)
    assert set(open_files(source).names) == set(FILES)


def test_the_identity_follows_names_and_sizes(tmp_path):
    variants = [FILES, FILES | {"a/one.bin": b"11"}, FILES | {"new": b""}]
    identities = {
        open_files(write_zip(tmp_path / f"{i}.zip", files)).identity()
        for i, files in enumerate(variants)
    }
    assert len(identities) == len(variants)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(kind, name, tmp_path):
    source = make_source(kind, tmp_path, {"fine": b"x", name: b"evil"})
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match="leads out of it"):
        open_files(source)
    assert sorted(os.listdir(tmp_path)) == before
    if kind == "tar":
        with pytest.raises(InputError, match="leads out of it"):
            list(read_tar_stream(source, lambda name: True, max_total_bytes=1000))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match=r"link or device, 'link'"):
        open_files(path)
    with pytest.raises(InputError, match=r"link or device, 'link'"):
        list(read_tar_stream(path, lambda name: True, max_total_bytes=1000))


def test_a_link_in_a_zip_is_refused(tmp_path):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match=r"a link, 'link'"):
        open_files(path)


def test_a_folder_may_be_a_link_but_not_to_its_own_parent(tmp_path):
    elsewhere = write_files(tmp_path / "elsewhere", {"x.bin": b"x"})
    folder = write_files(tmp_path / "files", FILES)
    (folder / "linked").symlink_to(elsewhere)
    assert dict(open_files(folder).read()) == FILES | {"linked/x.bin": b"x"}
    (folder / "b" / "loop").symlink_to(folder)
    with pytest.raises(InputError, match=r"loop.* read before"):
        open_files(folder)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    zeros = {"image.bmp": bytes(2**23)}
    path = write_zip(tmp_path / "bomb.zip", zeros, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"would grow from .* to 8388608 bytes"):
        open_files(path)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_file_beyond_all_measure_is_refused(kind, tmp_path):
    source = make_source(kind, tmp_path, {"big": b"x" * 1001})
    with pytest.raises(InputError, match="'big' has 1001 bytes, more than the 1000"):
        open_files(source, max_file_bytes=1000)


def test_a_compressed_tar_that_declares_too_much_is_refused(tmp_path):
    files = {"one": bytes(600), "two": bytes(600)}
    path = write_tar(tmp_path / "files.tar.gz", files, "w:gz")
    whole = read_tar_stream(path, lambda name: name == "two", max_total_bytes=1200)
    assert list(whole) == [("two", bytes(600))]
    with pytest.raises(InputError, match="at most 1199 bytes, and declares 1200"):
        list(read_tar_stream(path, lambda name: True, max_total_bytes=1199))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_is_cut_off_is_refused(kind, tmp_path, rng):
    files = {f"{i}.bin": rng.bytes(3000) for i in range(8)}
    source = make_source(kind, tmp_path, files)
    source.write_bytes(source.read_bytes()[:10_000])
    with pytest.raises(InputError):
        list(open_files(source).read())


def test_a_damaged_file_in_a_zip_is_named(tmp_path, rng):
    source = write_zip(tmp_path / "x.zip", {"a": b"fine", "b": rng.bytes(1000)})
    content = bytearray(source.read_bytes())
    content[500] ^= 1
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"x.zip:b cannot be read"):
        list(open_files(source).read())


def test_a_file_that_changed_since_it_was_listed_is_named(tmp_path):
    files = open_files(write_files(tmp_path / "files", FILES))
    (tmp_path / "files" / "b" / "two.bin").write_bytes(b"longer")
    with pytest.raises(InputError, match=r"two.bin had 2 bytes and now has 6"):
        list(files.read())
    (tmp_path / "files" / "b" / "two.bin").unlink()
    with pytest.raises(InputError, match=r"two.bin cannot be read"):
        list(files.read())


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_files(tmp_path / "nothing")
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(InputError, match="a folder, a zip or a tar"):
        open_files(tmp_path / "noise")
    path = write_tar(tmp_path / "x.tar.gz", FILES, "w:gz")
    with pytest.raises(InputError, match="tar without compression"):
        open_files(path)
    path.write_bytes(io.BytesIO(path.read_bytes()).read(60))
    with pytest.raises(InputError, match="no tar that can be read"):
        list(read_tar_stream(path, lambda name: True, max_total_bytes=1000))
