"""The page to play with, as people use it: choose, press, look."""

import asyncio
import threading
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest
from browser import visit
from processes import digits_config

from dig_jax.config import with_sections
from dig_jax.demo import server
from dig_jax.demo.nodes import Nodes
from dig_jax.demo.playing import Played
from dig_jax.experiment import create_experiment
from dig_jax.run import load

PIXELS = """canvas => {
    const {width, height} = canvas;
    const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    return [height, width, ...rgba.filter((_, i) => i % 4 === 0)];
}"""


@contextmanager
def served(models):
    """The page's address, while a thread serves it."""
    sockets = server.bind("127.0.0.1", 0)
    application = server.create_application(models, server.Queue())
    started, held = threading.Event(), []

    async def run():
        ended = asyncio.Event()
        held.extend([asyncio.get_running_loop(), ended])
        started.set()
        await server.serve(application, sockets, ended)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    started.wait()
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
    finally:
        loop, ended = held
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@pytest.fixture(scope="module")
def runs(trained_runs, without_optimizations):
    """A run, and the same with another average of its parameters."""
    workdir = trained_runs.workdir()
    return load(workdir), load(workdir, sigma_rel=0.1)


@pytest.fixture(scope="module")
def address(runs):
    with served([Played(run) for run in runs]) as where:
        yield where


@pytest.fixture
def page(browser, address):
    """The page of both models; it ends without errors, and asked nobody else."""
    with visit(browser, address) as seen:
        opened: Any = seen.page
        opened.set_default_timeout(60_000)
        opened.wait_for_selector("[name=solver] option", state="attached")
        yield opened
        assert seen.errors == []
        assert seen.outside == []


def press(page, selector):
    """Press the button, and wait for what is to appear."""
    page.click("#go")
    page.wait_for_selector(f"{selector}, #said.wrong")
    assert page.query_selector("#said.wrong") is None, page.inner_text("#said")


def shown(page, selector, frame):
    """The pixels of all canvases at a frame, [canvas, row, col]."""
    page.wait_for_selector(f"{selector}[data-frame='{frame}']")
    found = []
    for canvas in page.query_selector_all(selector):
        rows, cols, *pixels = canvas.evaluate(PIXELS)
        found.append(np.reshape(pixels, (rows, cols)))
    return np.array(found, np.uint8)


def slide(page, view, frame):
    page.fill(f"#{view} input[type=range]", str(frame))


def test_one_draws_and_sees_what_both_models_sample(page, runs):
    page.fill("[name=class]", "3")
    page.fill("[name=number]", "2")
    page.fill("[name=seed]", "7")
    page.fill("[name=steps]", "3")
    press(page, "#draw canvas")
    slide(page, "draw", 3)
    expected = [run.sample(2, labels=3, seed=7, num_steps=3)[..., 0] for run in runs]
    drawn = shown(page, "#draw canvas", 3)
    np.testing.assert_array_equal(drawn, np.concatenate(expected))
    slide(page, "draw", 0)
    noise = shown(page, "#draw canvas", 0)
    np.testing.assert_array_equal(noise[:2], noise[2:])  # both begin with one noise
    assert (noise != drawn).any()
    assert "time 1.00" in page.inner_text("#draw output")


def test_one_looks_at_what_a_node_receives(page, runs):
    page.fill("[name=number]", "1")
    press(page, "#draw canvas")
    page.click("#draw figure button")
    page.wait_for_selector("#node svg")
    # A patch inside of 2 x 2 of 4 pixels has two neighbours and both hubs.
    grid = runs[0].experiment.backbone.graph
    assert grid.patch_sizes == (4, 8)
    first, second = page.query_selector_all("#node tbody tr")
    assert "2 patches at 0.25, time 0.25, class 0.25" in first.inner_text()
    assert first.inner_text().startswith("4-pixel patches")
    # The one coarse patch: 8 edges inside, 4 to each of two hubs.
    assert "itself 0.5, time 0.25, class 0.25" in second.inner_text()
    assert len(page.query_selector_all("#node line.message")) == 4 + 2
    assert "row 2, column 2" in page.inner_text("#node h2 >> nth=-1")
    page.press("#node svg", "ArrowLeft")
    page.wait_for_selector("#node h2:has-text('row 2, column 1')")
    page.select_option("[name=scale]", label="time")
    page.wait_for_selector("#node h2:text-is('time')")
    assert "4 patches at 0.25" in page.inner_text("#node tbody tr >> nth=0")


def test_one_goes_from_one_image_to_another(page, runs):
    page.click("[data-view=between]")
    page.fill("[name=from_class]", "3")
    page.fill("[name=to_class]", "8")
    page.fill("[name=from_seed]", "4")
    page.fill("[name=to_seed]", "9")
    page.fill("[name=between_number]", "3")
    page.fill("[name=steps]", "3")
    press(page, "#between canvas")
    for frame, label, seed in ((0, 3, 4), (2, 8, 9)):
        slide(page, "between", frame)
        both = shown(page, "#between .large canvas", frame)
        for found, run in zip(both, runs, strict=True):
            expected = run.sample(1, labels=label, seed=seed, num_steps=3)[0, ..., 0]
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("class", "cat", "does not know 'cat'"),
        ("class", "3, 12", "its label (0 to 9)"),
        ("class", "training", "does not know 'training'"),
        ("number", "many", "Number must be a whole number from 1 to 32, got 'many'."),
        ("number", "33", "got '33'"),
        ("seed", "-1", "Seed must be"),
        ("steps", "0", "Steps must be a whole number from 1 to 1000"),
        ("guidance", "nan", "Guidance must be a number from 0 to 20, got 'nan'."),
    ],
)
def test_wrong_values_are_answered_in_words(page, name, value, said):
    page.fill(f"[name={name}]", value)
    page.click("#go")
    page.wait_for_selector("#said.wrong")
    text = page.inner_text("#said")
    assert said in text
    assert "\n" not in text


def test_nothing_can_be_pressed_before_the_fields_are_filled(browser, address):
    with visit(browser, "about:blank") as seen:
        opened: Any = seen.page
        waiting = []
        opened.route("**/api/model", lambda route: waiting.append(route))
        opened.goto(address)
        while not waiting:
            opened.wait_for_timeout(20)
        buttons = opened.query_selector_all("button")
        assert not any(b.is_visible() and b.is_enabled() for b in buttons)
        assert not any(s.is_visible() for s in opened.query_selector_all("section"))
        waiting[0].continue_()
        opened.wait_for_selector("#go")
        assert opened.input_value("[name=number]") == "8"
        assert all(b.is_enabled() for b in opened.query_selector_all("nav button"))


# Rows of the table, each its name and colour, and lines, each its width and dashes.
SHOWN = """([graph, answer]) => {
    told = {models: [{}]};
    showNode({name: "", graph}, answer);
    const shown = (kind) => [...sections.node.querySelectorAll(kind)];
    return [
        shown("tbody tr td:first-child").map((cell) =>
            [cell.innerText, cell.querySelector(".dot").style.background]),
        shown("line.message").map((line) => [
            parseFloat(line.getAttribute("stroke-width")),
            line.getAttribute("stroke-dasharray") !== null]),
    ];
}"""


def test_lines_of_relations_show_how_large_what_is_sent_is(page):
    backbone = dict(name="dig_relational", width=8, depth=1, patch_sizes=(2, 4))
    backbone |= dict(num_classes=10, conditioning="both")
    config = with_sections(digits_config("nowhere"), backbone=backbone)
    experiment = create_experiment(config)
    network = experiment.backbone
    grid = network.graph
    assert grid is not None
    nodes = Nodes(experiment, grid, network.init(jax.random.key(0)))
    x = np.random.default_rng(0).normal(size=network.image_shape)
    groups = nodes.received(5, 1, (x, 0.5, 3))
    for group in groups:
        if len(group["sent"]) == 1 and group["norm"] is not None:
            np.testing.assert_allclose(group["sent"], group["norm"], rtol=1e-6)
    answer = {"picture": "", "groups": groups}
    rows, lines = page.evaluate(SHOWN, [nodes.describe(), answer])
    colors = dict(rows)
    coarse, fine = (f"var(--scale{i})" for i in (1, 0))
    assert colors["down, 4 to 2 pixels"] == coarse
    assert colors["north, 2 pixels"] == fine
    assert colors["from class"] == "var(--hub)"
    # Drawn in the order of the groups from the last on, but the node's own.
    sent = [
        sent
        for group in reversed(groups)
        for sent, sender in zip(group["sent"], group["senders"], strict=True)
        if sender != 5
    ]
    assert [dashed for _, dashed in lines] == [one is None for one in sent]
    widths = [width for width, dashed in lines if not dashed]
    sizes = [one for one in sent if one is not None]
    assert len({round(width, 6) for width in widths}) > 1
    np.testing.assert_array_equal(np.argsort(widths), np.argsort(sizes))


def test_dark_is_dark_and_light_is_light(browser, address):
    brightness = {}
    for scheme in ("light", "dark"):
        with visit(browser, address, color_scheme=scheme) as seen:
            opened: Any = seen.page
            style = "getComputedStyle(document.body)"
            colors = opened.evaluate(f"[{style}.backgroundColor, {style}.color]")
            brightness[scheme] = [
                np.mean([int(part) for part in color[4:-1].split(",")])
                for color in colors
            ]
    (ground, ink), (dark_ground, dark_ink) = brightness["light"], brightness["dark"]
    assert ground > 200 > 80 > ink
    assert dark_ground < 80 < 200 < dark_ink
