"""A run draws an image's unknown pixels, and keeps the others as they are."""

import re

import numpy as np
import pytest
from PIL import Image

from dig_jax.cli.command_line import parse
from dig_jax.cli.flag_table import COMPLETIONS
from dig_jax.cli.modes import MODES
from dig_jax.config import check_section
from dig_jax.diffusion import create_sde
from dig_jax.errors import InputError
from dig_jax.main import main
from dig_jax.options import DataOptions, SampleOptions
from dig_jax.run import load
from dig_jax.sampling import sampler
from dig_jax.sampling.inpainting import KnownPixels, known_record, read_known
from dig_jax.sampling.samples import read_samples

GREY = DataOptions(name="digits", image_size=8, channels=1)
COLOUR = DataOptions(name="synthetic", image_size=8, channels=3)
MASK = np.zeros((8, 8), bool)
MASK[4:, 2:] = True
REPAINT = {"inpaint": "repaint", "inpaint_jump": 1, "inpaint_resamplings": 2}


@pytest.fixture(scope="module")
def run(trained_runs, without_optimizations):
    return load(trained_runs.workdir())


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("options", [{"inpaint_iterations": 2}, REPAINT])
def test_known_pixels_come_out_as_given_and_others_are_drawn(run, image, options):
    drawn = run.inpaint(image, MASK, 3, labels=3, **options)
    assert drawn.shape == (3, 8, 8, 1)
    assert (drawn[:, ~MASK] == image[~MASK]).all()
    assert len(np.unique(drawn, axis=0)) == 3
    # They depend on the known ones, and not on what stands at the unknown.
    new = run.sample(3, labels=3)
    assert (drawn[:, MASK] != new[:, MASK]).any()
    other = np.where(MASK[..., None], 255 - image, image)
    np.testing.assert_array_equal(
        run.inpaint(other, MASK, 3, labels=3, **options), drawn
    )


def test_images_and_masks_share_a_program(run, image, monkeypatch):
    run.inpaint(image, MASK, 2, num_steps=3)
    new = run.sample(2, num_steps=3)
    monkeypatch.setattr(sampler, "compile_lowered", None)  # nobody calls it
    first = run.inpaint(image, MASK, 2, num_steps=3, seed=1)
    other = run.inpaint(255 - image, ~MASK, 2, num_steps=3, seed=1)
    assert (first[:, ~MASK] == image[~MASK]).all()
    assert (other[:, MASK] == 255 - image[MASK]).all()
    np.testing.assert_array_equal(run.sample(2, num_steps=3), new)


def test_a_completion_does_not_depend_on_how_many_are_drawn(run, image):
    many = run.inpaint(image, MASK, 17, num_steps=3)
    np.testing.assert_array_equal(run.inpaint(image, MASK, 2, num_steps=3), many[:2])


def write(path, pixels):
    Image.fromarray(pixels.squeeze()).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_files_mean_what_their_pixels_say(image, tmp_path, mode):
    known, mask = tmp_path / "known.png", tmp_path / "mask.png"
    Image.fromarray(image[..., 0]).convert(mode if mode != "RGBA" else "L").save(known)
    white = np.where(MASK, 200, 100).astype(np.uint8)  # as a JPEG has at edges
    Image.fromarray(white).convert(mode).save(mask)
    read = read_known(known, mask, GREY)
    np.testing.assert_array_equal(read.image, image)
    np.testing.assert_array_equal(read.drawn[..., 0], MASK)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA"])
def test_images_of_pillow_are_their_pixels(image, mode):
    known = Image.fromarray(image[..., 0]).convert(mode)
    mask = Image.fromarray(MASK).convert(mode)
    read = read_known(known, mask, GREY)
    np.testing.assert_array_equal(read.image, image)
    np.testing.assert_array_equal(read.drawn[..., 0], MASK)


def test_a_palettes_indices_are_no_pixels(image):
    # 0 is white here, and 1 black: what the palette says, not what the bytes are.
    mask = Image.fromarray((~MASK).astype(np.uint8))
    mask.putpalette([255, 255, 255, 0, 0, 0])
    assert mask.mode == "P"
    np.testing.assert_array_equal(read_known(image, mask, GREY).drawn[..., 0], MASK)


WHITE = MASK[..., None].astype(np.uint8) * 255


@pytest.mark.parametrize(
    "mask",
    [
        MASK.astype(np.uint8),
        MASK[..., None],
        WHITE.repeat(3, -1),
        np.concatenate([WHITE.repeat(3, -1), np.full((8, 8, 1), 255, np.uint8)], -1),
        WHITE // 255 * 129,
    ],
    ids=["0 and 1", "bool with a channel", "RGB", "opaque RGBA", "129"],
)
def test_arrays_are_masks_however_they_are_written(image, mask, tmp_path):
    read = read_known(image, mask, GREY)
    np.testing.assert_array_equal(read.drawn[..., 0], MASK)
    file = write(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_known(image, file, GREY).drawn, read.drawn)


def test_an_opaque_picture_is_kept_as_it_is(image, tmp_path):
    known = tmp_path / "known.png"
    Image.fromarray(image[..., 0]).convert("RGBA").save(known)
    np.testing.assert_array_equal(read_known(known, MASK, GREY).image, image)


def test_grey_pictures_are_known_in_every_colour(image, tmp_path):
    known = write(tmp_path / "known.png", image)
    np.testing.assert_array_equal(
        read_known(known, MASK, COLOUR).image, image.repeat(3, -1)
    )


@pytest.mark.parametrize("data", [GREY, COLOUR], ids=["grey run", "colour run"])
@pytest.mark.parametrize("count", [1, 3])
def test_grey_pixels_are_known_in_arrays_as_in_files(image, tmp_path, data, count):
    array = image.repeat(count, -1)
    file = write(tmp_path / "known.png", array)
    expected = read_known(file, MASK, data).image
    np.testing.assert_array_equal(read_known(array, MASK, data).image, expected)
    np.testing.assert_array_equal(expected, image.repeat(data.channels, -1))


def test_few_are_drawn_where_nobody_says_how_many(run):
    command = ["--mode=sample", f"--workdir={run.workdir}"]
    known = ["--known=known.png", "--mask=mask.png"]
    own = run.experiment.sample.num_images
    for more, count in (
        ([], own),
        (known, COMPLETIONS),
        ([*known, "--config.sample.num_images=3"], 3),
    ):
        config = parse([*command, *more], MODES)[1]
        assert check_section(config, "sample").num_images == count
    assert own != COMPLETIONS


def colourful(image):
    return np.concatenate([image, 255 - image, image], -1)


CLEAR = np.concatenate([np.full((8, 8, 3), 255, np.uint8), WHITE], -1)


@pytest.mark.parametrize(
    ("known", "mask", "said"),
    [
        (np.zeros((9, 8, 1), np.uint8), MASK, r"8x8 .* 1 channel, .*got 9x8 with 1"),
        (CLEAR[..., 1:], MASK, r"1 channel, .*got 8x8 with 3"),
        (np.zeros((8, 8)), MASK, r"uint8 .*got float64 \(8, 8\)"),
        (np.zeros((8, 8), np.uint8), MASK[:4], r"mask must be 8x8 .*got 4x8"),
        (np.zeros((8, 8), np.uint8), MASK * 1.0, r"bool or uint8 .*got float64"),
        (np.zeros((8, 8), np.uint8), MASK & False, r"black where .* all black\."),
        (np.zeros((8, 8), np.uint8), MASK | True, r"all white: draw new images"),
        ("nothing.png", MASK, r"nothing.png cannot be read as the known image: .*No"),
        ("text.png", MASK, r"text.png cannot be read .*: it is not an image"),
        ("colour.png", MASK, r"1 channel, .*got 8x8 with 3 in .*colour.png"),
        ("clear.png", MASK, r"8 bits .*got one that is transparent in .*clear.png"),
        ("deep.png", MASK, r"8 bits .*got one that is 16-bit in .*deep.png"),
        ("large.png", "large.png", r"8x8 .*got 16x8 with 1 in .*large.png"),
        ("grey.png", "large.png", r"mask must be 8x8 .*got 16x8 in .*large.png"),
        ("grey.png", "text.png", r"text.png cannot be read as a mask: it is not"),
        ("grey.png", "clear.png", r"without transparent pixels, .* in .*clear.png"),
        ("grey.png", CLEAR, r"transparent pixels, .* uint8 \(8, 8, 4\): save it as"),
        ("grey.png", Image.fromarray(CLEAR), r"pixels, .* Pillow's image of mode RGBA"),
        ("grey.png", Image.new("F", (8, 8)), r"mode F cannot be read as a mask: its"),
        ("grey.png", MASK[..., None].repeat(2, -1), r"bool or uint8 .*got bool"),
        ("grey.png", np.uint8(90) * MASK, r"white \(128 and more; .* all black"),
    ],
)
def test_what_does_not_fit_is_refused(image, tmp_path, monkeypatch, known, mask, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    write(tmp_path / "grey.png", image)
    write(tmp_path / "colour.png", colourful(image))
    write(tmp_path / "large.png", image.repeat(2, axis=0))
    Image.fromarray(CLEAR).save(tmp_path / "clear.png")
    Image.fromarray(image[..., 0].astype(np.uint16) * 250).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=said) as refused:
        read_known(known, mask, GREY)
    assert "\n" not in str(refused.value)


def test_latents_are_refused(image):
    latents = DataOptions(name="latents", image_size=8, channels=4)
    with pytest.raises(InputError, match=r"needs a run on pixels: .*latents"):
        read_known(image, MASK, latents)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"inpaint": "repaint", "solver": "unipc", "num_steps": 4},
            r"\(ancestral, ddim, euler_maruyama, ode_euler\), got unipc.*=moments",
        ),
        ({"inpaint": "repaint", "inpaint_jump": 2}, r"num_steps=2, got .*jump=2"),
        ({"inpaint": "dps"}, r"inpaint must be .*moments.*repaint.*dps"),
    ],
)
def test_ways_that_cannot_draw_are_refused(run, image, options, said):
    with pytest.raises(InputError, match=said):
        run.inpaint(image, MASK, **options)


def test_the_command_line_draws_the_same(run, image, tmp_path, capsys):
    known = write(tmp_path / "known.png", image)
    mask = write(tmp_path / "mask.png", MASK)
    command = [
        f"--workdir={run.workdir}",
        "--mode=sample",
        f"--out={tmp_path / 'out'}",
        f"--known={known}",
        "--config.sample.num_images=3",
        "--config.sample.inpaint_iterations=2",
    ]
    assert main([*command, f"--mask={mask}"]) == 0
    found, provenance = read_samples(tmp_path / "out" / "samples.npz")
    expected = run.inpaint(image, MASK, 3, inpaint_iterations=2)
    np.testing.assert_array_equal(found.images, expected)
    assert provenance["inpaint"] == "moments"
    assert provenance["inpaint_iterations"] == 2
    assert {"known_digest", "mask_digest"} <= set(provenance)
    capsys.readouterr()
    for wrong, said in (
        (command, "needs both .*got --known alone"),
        ([*command, f"--mask={known}x"], "known.pngx cannot be read as a mask"),
    ):
        assert main(wrong) == 78
        assert re.search(said, capsys.readouterr().err)


def test_a_record_says_how_the_unknown_pixels_were_drawn(image):
    options = SampleOptions(
        num_steps=5, inpaint="repaint", inpaint_jump=2, inpaint_resamplings=3
    )
    sde, drawn = create_sde("vp_linear"), MASK[..., None]
    record = known_record(KnownPixels(image, drawn), options, sde)
    assert {"inpaint", "inpaint_jump", "inpaint_resamplings"} < set(record)
    # Five steps, and two stretches of two steps taken twice more.
    assert record["function_evaluations"] == 5 + 2 * 2 * 2
    same = KnownPixels(np.where(drawn, 0, image), drawn)
    other = KnownPixels(image, ~drawn)
    assert known_record(same, options, sde) == record
    assert known_record(other, options, sde) != record


def test_new_images_record_nothing_of_it(run):
    assert not any("inpaint" in key for key in run.drawing().describe())
