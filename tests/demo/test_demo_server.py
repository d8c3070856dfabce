"""The demo's server: what it answers, to whom, and what it refuses."""

import http.client
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewstep import FewShotClassifier, FewShotRegressor, maml, protonet
from fewstep.commands.main import main
from fewstep.core import Descend
from fewstep.data.images.files import Reading
from fewstep.demo.characters import named
from fewstep.demo.drawing import as_omniglot, drawing
from fewstep.demo.models import Models, models
from fewstep.demo.server import BYTES, Server, is_local
from fewstep.estimators.model import TrainedModel
from fewstep.evaluation.exact.sine_or_line import exact_posterior
from fewstep.evaluation.inner_loop import evaluation_copy
from fewstep.evaluation.simple import Simple
from fewstep.networks import Conv4

HOOK, BAR, ZED = [[[0.2, 0.2], [0.7, 0.2], [0.7, 0.8]]], [[[0.1, 0.5], [0.8, 0.4]]], [[[0, 0], [1, 0], [0, 1], [1, 1]]]
JSON = {"Content-Type": "application/json"}


def send(server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """Status, headers and content of a reply."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def ask(server: Server, path: str, asked: Any, **headers: str) -> tuple[int, Any]:
    body = asked if isinstance(asked, bytes) else json.dumps(asked)
    status, _, content = send(server, "POST", path, body, {**JSON, **headers})
    return status, json.loads(content)


def test_pages_are_served_and_name_no_other_place(server: Server) -> None:
    pages = {path: send(server, "GET", path) for path in ("/", "/functions", *server.files)}
    assert {status for status, _, _ in pages.values()} == {200}
    for path, (_, headers, content) in pages.items():
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        foreign = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w/]*", content.decode()))
        assert foreign <= {"http://www.w3.org/2000/svg", "//www.w3.org/2000/svg"}, path
    assert b"omniglot-leo" in pages["/"][2]
    assert b"sine-line-leo, trained on 5 points" in pages["/functions"][2]
    assert send(server, "GET", "/../server.py")[0] == 404


def test_stages_are_those_of_the_method(shipped: Models) -> None:
    """Witnesses: the same method without a step, without fine-tuning, and the classifier as users have it."""
    examples = np.stack([as_omniglot(drawing(one)) for one in (HOOK, BAR, ZED)])
    query = as_omniglot(drawing([[[0.2, 0.2], [0.8, 0.25], [0.3, 0.8], [0.7, 0.75]]]))
    found, model = named(shipped.characters, examples, query), shipped.characters
    latent = evaluation_copy(model.method)
    *_, last = (stage for stage in latent.learner.stages if isinstance(stage, Descend))
    last.steps = 0
    methods = {"before": evaluation_copy(model.method, steps=0), "latent": latent, "after": model.method}
    assert list(found.stages) == list(methods)
    for name, method in methods.items():
        alike = TrainedModel(method, extractor=model.extractor, normalise=True, reading=model.reading)
        classifier = FewShotClassifier(alike).fit((examples / 255).astype("f"), list("abc"))
        expected = classifier.predict_proba((query[None] / 255).astype("f"))[0]
        np.testing.assert_allclose(found.stages[name], expected, atol=1e-6)
    assert found.stages["after"].argmax() == 2
    assert found.codes.shape == (6, 3, 2)
    assert 0 < found.shown <= 1
    np.testing.assert_allclose(found.codes.mean((0, 1)), 0, atol=1e-6)  # of all codes of the task


@pytest.mark.parametrize(("method", "stages"), [("maml", ["before", "after"]), ("protonet", ["after"])])
def test_a_method_without_codes_has_fewer_stages(method: str, stages: list[str]) -> None:
    made = maml(Conv4(outputs=3), rate=0.4, steps=2) if method == "maml" else protonet(Conv4(outputs=None))
    examples = np.stack([as_omniglot(drawing(one)) for one in (HOOK, BAR, ZED)])
    found = named(TrainedModel(made, reading=Reading()), examples, examples[1])
    expected = FewShotClassifier(made).fit((examples / 255).astype("f"), range(3))
    np.testing.assert_allclose(
        found.stages["after"], expected.predict_proba((examples[1:2] / 255).astype("f"))[0], atol=1e-6
    )
    assert (list(found.stages), found.codes.size) == (stages, 0)


def test_functions_are_those_of_the_regressor_beside_the_exact_posterior(server: Server, shipped: Models) -> None:
    x, y = np.array([-3.0, 0.5, 2.0]), np.array([1.0, -1.0, 2.5])
    status, answer = ask(server, "/functions", {"points": np.stack([x, y], 1).tolist()})
    grid = np.array(answer["x"])
    regressor = FewShotRegressor("sine-line-leo", noise=0.3).fit(x[:, None], y)
    exact = exact_posterior(x[None], y[None])
    assert (status, shipped.tasks.noise) == (200, 0.3)
    np.testing.assert_allclose(answer["learned"]["mean"], regressor.predict(grid[:, None]), atol=1e-3)
    np.testing.assert_allclose(answer["exact"]["mean"], exact.mean(grid[None])[0], atol=1e-3)
    assert answer["exact"]["line"] == pytest.approx(exact.line[0], abs=1e-4)
    assert np.shape(answer["learned"]["functions"]) == np.shape(answer["exact"]["functions"])


def test_many_users_share_nothing(server: Server) -> None:
    """Each is answered as if alone, however questions arrive."""
    asked = [{"examples": [a, b], "query": ZED} for a in (HOOK, BAR, ZED) for b in (HOOK, BAR, ZED)]
    alone = [ask(server, "/characters", one) for one in asked]
    with ThreadPoolExecutor(6) as users:
        together = list(users.map(lambda one: ask(server, "/characters", one), asked * 2))
    assert together == alone * 2
    assert len({json.dumps(answer["stages"]) for _, answer in alone}) > 5


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (b"\x89PNG\r\n\x1a\n", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"examples": [], "query": NaN}', "no JSON"),
        ([], "examples and a query"),
        ({"examples": [HOOK, BAR], "query": ZED, "path": "/etc/passwd"}, "nothing else"),
        ({"examples": [HOOK], "query": ZED}, "draw 2 to 5"),
        ({"examples": [HOOK] * 6, "query": ZED}, "draw 2 to 5"),
        ({"examples": [HOOK, []], "query": ZED}, "example B is empty"),
        ({"examples": [HOOK, BAR], "query": "data:image/png;base64,AAAA"}, "the query is no drawing"),
    ],
)
def test_what_is_no_question_is_refused(server: Server, asked: Any, why: str) -> None:
    status, answer = ask(server, "/characters", asked)
    assert (status, why in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    "points", [[], [[0, 9]], [[-5.1, 0]], [[0]], [["0", 0]], [[0, 0]] * 21, "0,0", [[True, 0]], [[0, 1e999]]]
)
def test_what_are_no_points_is_refused(server: Server, points: Any) -> None:
    assert ask(server, "/functions", {"points": points})[0] == 400


def test_uploads_are_refused(server: Server) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert send(server, "POST", "/characters", b"--x--", form)[0] == 415
    assert send(server, "POST", "/upload", b"{}", JSON)[0] == 404
    assert send(server, "PUT", "/characters", b"{}", JSON)[0] == 501
    assert send(server, "POST", "/characters", None, {**JSON, "Content-Length": str(BYTES + 1)})[0] == 413
    assert send(server, "POST", "/characters", None, {**JSON, "Content-Length": "-1"})[0] == 411


def test_pages_of_other_sites_cannot_ask(server: Server) -> None:
    question = {"examples": [HOOK, BAR], "query": HOOK}
    own = server.url.removesuffix("/")
    assert ask(server, "/characters", question, Origin=own)[0] == 200
    assert ask(server, "/characters", question, Origin="http://example.org")[0] == 403
    assert send(server, "GET", "/", None, {"Host": "example.org"})[0] == 403  # a name made to point here


def test_only_this_machine_is_served_unless_asked_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert [is_local(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.2", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit):
            main(["demo", "--port", str(taken.getsockname()[1])])
    assert "--port 0 takes a free one" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "said"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_command_says_where_it_is_and_who_may_come(
    host: str, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "serve_forever", lambda self: None)
    main(["demo", "--host", host, "--port", "0"])
    out = capsys.readouterr().out
    assert f"http://{host}:" in out
    assert ("open to others" in out) == said


def test_a_run_takes_the_place_of_its_kind_or_is_refused(tmp_path: Path) -> None:
    assert models("sine-line-leo").names == models().names
    rows = np.eye(4)
    other = FewShotClassifier(Simple("ridge")).fit(rows, list("abab")).save(tmp_path / "ridge")
    with pytest.raises(ValueError, match="cannot be shown"):
        models(other)
    mine = FewShotClassifier("omniglot-leo").save(tmp_path / "mine")
    assert models(mine).names == {"characters": str(mine), "functions": "sine-line-leo"}
