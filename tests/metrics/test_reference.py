import json
from dataclasses import replace

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import FeatureSummary, scores_from_features
from dig_jax.metrics.moments import moments_of
from dig_jax.metrics.reference import (
    ReferenceSet,
    check_reference,
    check_reference_file,
    read_reference,
    read_reference_file,
    write_reference,
)

SPACE = FeatureSpace("inception", "0123456789abcdef", "tf1", 6)
IMAGES = ReferenceSet("cifar10", "train", "none", "abc")


def random_summary(seed: int = 0, *, space=SPACE, held: bool = True) -> FeatureSummary:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    spatial = moments_of(rng.normal(size=(40, 3)))
    return FeatureSummary(
        space, moments_of(features), spatial, features if held else None
    )


def test_statistics_come_back_as_they_were_written(tmp_path):
    path, summary = tmp_path / "new" / "cifar10.npz", random_summary()
    digest = write_reference(path, summary, IMAGES)
    found = read_reference(path, SPACE)
    assert found.sha256 == digest
    assert found.images == IMAGES
    assert found.keys == ("mu", "sigma", "mu_s", "sigma_s", "features")
    assert found.summary.space == SPACE
    assert found.summary.moments.count == 40
    assert found.summary.held is not None
    np.testing.assert_array_equal(found.summary.held, summary.held)
    assert check_reference(found, SPACE, IMAGES) == []
    generated = random_summary(1)
    expected = scores_from_features(generated, summary)
    assert scores_from_features(generated, found.summary) == expected
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_statistics_written_twice_are_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_reference(tmp_path / f"{name}.npz", random_summary(), IMAGES)
    first, second = ((tmp_path / f"{name}.npz").read_bytes() for name in "ab")
    assert first == second


def test_other_features_have_another_digest(tmp_path):
    digests = {
        write_reference(tmp_path / "x.npz", summary, images)
        for summary, images in (
            (random_summary(0), IMAGES),
            (random_summary(1), IMAGES),
            (random_summary(0), replace(IMAGES, split="test")),
            (random_summary(0, space=replace(SPACE, resize="torch")), IMAGES),
        )
    }
    assert len(digests) == 4


def test_other_projects_read_our_means_under_their_names(tmp_path):
    path, summary = tmp_path / "x.npz", random_summary()
    write_reference(path, summary, IMAGES)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["mu"].dtype == arrays["sigma"].dtype == np.float64
        np.testing.assert_array_equal(arrays["sigma"], summary.moments.cov)
        assert json.loads(str(arrays["provenance"]))["count"] == 40


def test_pytorch_fids_statistics_are_read(tmp_path):
    summary = random_summary()
    np.savez(tmp_path / "x.npz", mu=summary.moments.mean, sigma=summary.moments.cov)
    found = read_reference(tmp_path / "x.npz", SPACE)
    assert found.keys == ("mu", "sigma")
    assert found.summary.moments.count is None
    assert found.summary.spatial is None
    # Nothing is known of its network and images, which is said.
    unknown = ["an unknown network with 6 features", "unknown images"]
    assert check_reference(found, SPACE, IMAGES) == unknown
    # Nobody but this program has a classifier's features.
    classifier = replace(SPACE, name="small_classifier", domain="digits")
    found = read_reference(tmp_path / "x.npz", classifier)
    with pytest.raises(InputError, match=r"6 features of an unknown network. Make so"):
        check_reference(found, classifier, IMAGES)
    assert check_reference(found, classifier, IMAGES, force=True) == unknown


@pytest.mark.parametrize(
    ("known", "dim", "of_classifier", "said"),
    [
        (False, 7, False, "6 features, the network has 7"),
        (True, 7, True, "6 features, the network has 7"),
        (False, 6, True, "features of an unknown network"),
        (False, 6, False, None),
        (True, 6, True, None),
    ],
)
def test_what_a_file_declares_is_checked_first(
    known, dim, of_classifier, said, tmp_path
):
    path, summary = tmp_path / "x.npz", random_summary()
    if known:
        write_reference(path, summary, IMAGES)
    else:
        np.savez(path, mu=summary.moments.mean, sigma=summary.moments.cov)
    if said is None:
        check_reference_file(path, dim=dim, of_classifier=of_classifier)
        return
    with pytest.raises(InputError, match=said):
        check_reference_file(path, dim=dim, of_classifier=of_classifier)


def test_pytorch_fids_statistics_give_its_score_alone(tmp_path):
    summary = random_summary()
    np.savez(tmp_path / "x.npz", mu=summary.moments.mean, sigma=summary.moments.cov)
    found = read_reference(tmp_path / "x.npz", SPACE)
    scores = scores_from_features(random_summary(1), found.summary)
    assert [score.name for score in scores] == ["fid40"]


def test_adms_statistics_and_images_are_read(tmp_path):
    summary = random_summary()
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert summary.spatial is not None
    np.savez(
        tmp_path / "x.npz",
        arr_0=images,
        mu=summary.moments.mean,
        sigma=summary.moments.cov,
        mu_s=summary.spatial.mean,
        sigma_s=summary.spatial.cov,
    )
    found = read_reference(tmp_path / "x.npz", SPACE)
    assert found.keys == ("mu", "sigma", "mu_s", "sigma_s")
    scores = scores_from_features(random_summary(1), found.summary)
    assert [score.name for score in scores] == ["fid40", "sfid40"]
    np.savez(tmp_path / "x.npz", images)
    alone = read_reference_file(tmp_path / "x.npz", SPACE)
    np.testing.assert_array_equal(alone, images)


def test_a_batch_of_images_alone_is_no_statistics(tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"got arr_0 in .*Features of its images"):
        read_reference(tmp_path / "x.npz", SPACE)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (replace(IMAGES, dataset="svhn"), "dataset cifar10 instead of svhn"),
        (replace(IMAGES, split="test"), "split train instead of test"),
        (replace(IMAGES, transform="area"), "transform none instead of area"),
        (replace(IMAGES, fingerprint="x"), "fingerprint abc instead of x"),
    ],
)
def test_statistics_of_other_images_are_refused_unless_forced(
    tmp_path, images, message
):
    write_reference(tmp_path / "x.npz", random_summary(), IMAGES)
    found = read_reference(tmp_path / "x.npz", SPACE)
    with pytest.raises(InputError, match=message):
        check_reference(found, SPACE, images)
    assert check_reference(found, SPACE, images, force=True) == [message]


def test_what_a_run_does_not_know_is_not_compared(tmp_path):
    write_reference(tmp_path / "x.npz", random_summary(), IMAGES)
    found = read_reference(tmp_path / "x.npz", SPACE)
    assert check_reference(found, SPACE, ReferenceSet(dataset="cifar10")) == []


@pytest.mark.parametrize(
    "space",
    [replace(SPACE, resize="torch"), replace(SPACE, weights="fedcba9876543210")],
)
def test_statistics_of_another_network_are_refused_unless_forced(tmp_path, space):
    write_reference(tmp_path / "x.npz", random_summary(), IMAGES)
    found = read_reference(tmp_path / "x.npz", space)
    with pytest.raises(InputError, match="features of inception"):
        check_reference(found, space, IMAGES)
    assert len(check_reference(found, space, IMAGES, force=True)) == 1


def test_another_number_of_features_is_refused_also_if_forced(tmp_path):
    write_reference(tmp_path / "x.npz", random_summary(), IMAGES)
    found = read_reference(tmp_path / "x.npz", SPACE)
    with pytest.raises(InputError, match="have 6 features, the network has 2048"):
        check_reference(found, replace(SPACE, dim=2048), IMAGES, force=True)


def test_missing_statistics_say_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match=r"make some with --mode=stats"):
        read_reference(tmp_path / "none.npz", SPACE)


def test_every_changed_array_is_found(tmp_path):
    path = tmp_path / "x.npz"
    write_reference(path, random_summary(), IMAGES)
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    for key in ("mu", "sigma", "mu_s", "sigma_s", "features"):
        changed = {**arrays, key: arrays[key] + arrays[key].dtype.type(1e-3)}
        np.savez(path, **changed)
        with pytest.raises(InputError, match="is damaged"):
            read_reference(path, SPACE)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            dict(mu=np.zeros(3), sigma=np.zeros((3, 4))),
            r"mean \[3\].*got sigma float64 \(3, 4\)",
        ),
        (dict(mu=np.zeros(3), sigma=np.full((3, 3), np.nan)), "finite"),
        (dict(mu=np.array(["a", "b"]), sigma=np.zeros((2, 2))), "got mu <U1"),
        (dict(mu=np.zeros(3)), "got mu in"),
        (dict(mu=np.zeros(3), sigma=np.array([{}])), "got sigma object"),
        (
            dict(mu=np.zeros(3), sigma=np.zeros((3, 3)), provenance=np.array("{")),
            "prov",
        ),
        (
            dict(mu=np.zeros(3), sigma=np.zeros((3, 3)), provenance=np.array("[1]")),
            "prov",
        ),
    ],
    ids=["shape", "nan", "text", "lacking", "pickle", "json", "list"],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_reference(tmp_path / "x.npz", SPACE)


def test_a_declared_size_is_refused_before_it_is_read(tmp_path):
    import zipfile

    path = tmp_path / "x.npz"
    np.savez(path, mu=np.zeros(3))
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)}
    with zipfile.ZipFile(path, "a") as archive, archive.open("sigma.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match=r"got sigma float64 \(1048576, 1048576\)"):
        read_reference(path, SPACE)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04abc", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"no \.npz that can be read"):
        read_reference(tmp_path / "x.npz", SPACE)


def test_a_batch_of_other_values_than_bytes_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(InputError, match=r"uint8.*got arr_0 float32"):
        read_reference_file(tmp_path / "x.npz", SPACE)
