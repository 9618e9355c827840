"""Data sets as TFDS lays them out, of records that a test has serialized."""

import tensorflow_datasets as tfds
from array_record.python import array_record_module


def write_tfds(folder, name, features, records):
    """Write a split `train` of one shard and its metadata; returns its builder."""
    folder.mkdir(parents=True)
    path = folder / f"{name}-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=name,
        split="train",
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[len(records)],
        num_bytes=1,
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=[split], check_data=False
    )
    return tfds.builder_from_directory(folder)
