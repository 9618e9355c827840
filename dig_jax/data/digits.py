"""Scikit-learn's 1,797 handwritten digits as a TFDS data set: real, small, no network.

Importing this module imports TFDS and registers the builder under the name `digits`.
"""

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from dig_jax.data.data_dir import open_data_dir
from dig_jax.errors import InputError

_TEST_SIZE = 297
_SPLIT_SEED = 0
_MAX_VALUE = 16


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 grey digits, 1,500 to train and 297 to test, in scikit-learn's order.

    Values 0..16 become round(255 v / 16). The image is a Tensor feature, because TFDS
    writes its Image feature with TensorFlow.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums to look for. (TFDS's search for
    # them needs importlib_resources, which it does not require.)
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        images = np.rint(values * 255 / _MAX_VALUE).astype(np.uint8)
        images = images.reshape(-1, 8, 8, 1)
        test = choose_test_records(labels)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return {
            "train": self._generate_examples(images, labels, train),
            "test": self._generate_examples(images, labels, test),
        }

    def _generate_examples(self, images, labels, records):
        for record in records.tolist():
            yield record, {"image": images[record], "label": int(labels[record])}

    # TFDS prints these two notices to stdout, unasked.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def choose_test_records(labels: Int[np.ndarray, "record"]) -> Int[np.ndarray, "test"]:
    """A stratified random choice of 297 records, always the same one, in order.

    Records are sorted by label, at random within a label, and taken at equal distances:
    so each label's share of the test split is its share of the whole, to one record.
    """
    stream = np.random.Philox(np.random.SeedSequence(_SPLIT_SEED))
    by_label = np.lexsort((stream.random_raw(len(labels)), labels))
    places = (np.arange(_TEST_SIZE) + 0.5) * len(labels) / _TEST_SIZE
    return np.sort(by_label[places.astype(int)])


def prepare_digits(data_dir: str) -> Digits:
    """The builder, its files written to data_dir if they are not there yet.

    TFDS writes to a folder of its own and renames it when it is complete, so that of
    several processes one wins and the others find its files.

    Raises:
        InputError: The files cannot be written.
    """
    folder = open_data_dir(data_dir) if data_dir else None
    builder = Digits(data_dir=folder)
    if builder.data_path.exists():
        return builder
    tfds.display_progress_bar(False)
    try:
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    except (OSError, RuntimeError) as error:  # RuntimeError is array_record's own
        if not builder.data_path.exists():
            raise InputError(
                f"Data set 'digits' needs a folder that can be written, got "
                f"{builder.data_path}: {error}. Choose another with data_dir."
            ) from error
        builder = Digits(data_dir=folder)
    finally:
        tfds.display_progress_bar(True)
    return builder
