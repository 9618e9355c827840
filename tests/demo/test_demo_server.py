"""The demo's server by itself: what it refuses, and what the command line says."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest
import tornado.httpclient
import tornado.httputil

from dig_jax.demo import server
from dig_jax.demo.asked import MOST_PIXELS, Asked, frames_that_fit
from dig_jax.demo.playing import Played
from dig_jax.errors import EXIT_BAD_INPUT, InputError
from dig_jax.main import main
from dig_jax.run import load
from dig_jax.sampling.label_rules import choose_labels


@pytest.fixture(scope="module")
def run(trained_runs):
    return load(trained_runs.workdir())


def answers(models, *requests):
    """Status and body of requests `(path, headers, body)` to the server."""

    async def ask():
        sockets, ended = server.bind("127.0.0.1", 0), asyncio.Event()
        port = sockets[0].getsockname()[1]
        application = server.create_application(models, server.Queue())
        serving = asyncio.create_task(server.serve(application, sockets, ended))
        client, found = tornado.httpclient.AsyncHTTPClient(), []
        for path, headers, body in requests:
            own = {"Host": f"127.0.0.1:{port}", **headers}
            request = tornado.httpclient.HTTPRequest(
                f"http://127.0.0.1:{port}{path}",
                "GET" if body is None else "POST",
                tornado.httputil.HTTPHeaders(own),
                body,
            )
            answer = await client.fetch(request, raise_error=False)
            found.append((answer.code, answer.body.decode(), answer.headers))
        ended.set()
        await serving
        return found

    return asyncio.run(ask())


def test_only_the_page_of_this_server_is_answered(run):
    json_type = {"Content-Type": "application/json"}
    foreign = {"Origin": "http://elsewhere.example", **json_type}
    found = answers(
        [Played(run)],
        ("/", {}, None),
        ("/api/model", {"Host": "elsewhere.example"}, None),
        ("/api/draw", foreign, "{}"),
        ("/api/draw", {"Content-Type": "text/plain"}, "{}"),
        ("/api/draw", json_type, "["),
        ("/api/draw", json_type, "[]"),
        ("/api/draw", json_type, json.dumps({"class": "3" * 20_000})),
        ("/../page.html", {}, None),
        ("/server.py", {}, None),
    )
    codes = [code for code, *_ in found]
    assert codes == [200, 403, 403, 415, 400, 400, 400, 404, 404]
    headers = found[0][2]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in headers["Content-Security-Policy"]


def test_no_answer_tells_a_path_of_this_machine(run):
    for _, body, _ in answers([Played(run)], ("/api/model", {}, None), ("/", {}, None)):
        assert str(run.workdir.parent) not in body


def test_one_drawing_at_a_time_and_few_wait():
    at_work, most, let_go = [], [], threading.Event()

    def draw():
        at_work.append(1)
        most.append(len(at_work))
        let_go.wait()
        at_work.pop()
        return {"drawn": True}

    async def ask():
        queue = server.Queue()
        wanted = [queue.answer(draw) for _ in range(server.MOST_WAITING + 1)]
        asked = [asyncio.create_task(one) for one in wanted]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        let_go.set()
        return [one.result() for one in done], await asyncio.gather(*asked)

    refused, every = asyncio.run(ask())
    assert ["wait already" in one["error"] for one in refused] == [True]
    assert every.count({"drawn": True}) == server.MOST_WAITING
    assert max(most) == 1


def test_an_error_that_nobody_foresaw_is_told_and_the_next_is_answered(capsys):
    async def ask():
        queue = server.Queue()
        wrong = await queue.answer(lambda: {"value": 1 // 0})
        return wrong, await queue.answer(lambda: {"value": 1})

    wrong, right = asyncio.run(ask())
    assert "terminal" in wrong["error"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert right == {"value": 1}


def test_frames_are_as_many_as_an_answer_holds():
    assert frames_that_fit(8, (28, 28, 1)) == 24
    assert frames_that_fit(32, (256, 256, 3)) * 32 * 256**2 <= MOST_PIXELS
    with pytest.raises(InputError, match="at most 8"):
        frames_that_fit(9, (1024, 1024, 3))


@pytest.mark.parametrize("value", [3, None, ["3"], "3" * 300])
def test_a_field_of_another_kind_is_named(value):
    with pytest.raises(InputError, match="Class must be a text"):
        Asked({"class": value}).text("class")


def test_a_misspelt_class_is_asked_about_as_in_python(run):
    names = ("Trouser", "Sandal", "Bag")
    data = replace(run.experiment.data, class_names=names)
    clothes = Played(replace(run, experiment=replace(run.experiment, data=data)))
    asked = {**clothes.defaults(), "class": "2, bag"}
    with pytest.raises(InputError, match=r"know '2, bag'\. Did you mean 'Bag'\?$"):
        clothes.draw(Asked(asked))
    with pytest.raises(InputError, match=r"got 'bag'\. Did you mean 'Bag'\?$"):
        choose_labels("2, bag", 1, 3, class_names=names)


def test_models_side_by_side_draw_images_of_one_shape(run):
    backbone = run.experiment.backbone._replace(image_shape=(16, 16, 1))
    other = replace(run, experiment=replace(run.experiment, backbone=backbone))
    with pytest.raises(InputError, match=r"\(8, 8, 1\) and \(16, 16, 1\)"):
        server.check_models([Played(run), Played(other)])


def test_a_configuration_that_cannot_draw_is_refused_at_start(run, capsys):
    command = ["--mode=demo", f"--workdir={run.workdir}", "--port=0"]
    assert main([*command, "--config.sample.labels=99"]) == EXIT_BAD_INPUT
    *loading, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: sample.labels must lie in 0 to 9")
    assert all(line.startswith("loading ") for line in loading)


def test_a_port_in_use_is_named(run, capsys):
    sockets = server.bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    command = ["--mode=demo", f"--workdir={run.workdir}"]
    assert main([*command, f"--port={port}"]) == EXIT_BAD_INPUT
    sockets[0].close()
    said = capsys.readouterr().err
    assert f"Port {port} of 127.0.0.1 is in use" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "needs --workdir"),
        (["--workdir={none}"], "none"),
        (["--workdir={run}", "--port=70000"], "--port must be from 0 to 65535"),
        (["--workdir={run}", "--host=192.0.2.1", "--port=0"], "--host=192.0.2.1"),
        (["--workdir={run}", "--port=0", "--beside={none}"], "none"),
        (["--workdir={run}", "--port=0", "--config.sample.solver=x"], "solver 'x'"),
    ],
)
def test_what_cannot_be_played_with_is_a_line(run, tmp_path, capsys, flags, said):
    places = {"run": run.workdir, "none": tmp_path / "none"}
    flags = [flag.format(**places) for flag in flags]
    assert main(["--mode=demo", *flags]) == EXIT_BAD_INPUT
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert said in error[0]
