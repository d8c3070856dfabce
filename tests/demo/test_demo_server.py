"""The demo's server: what it answers, to whom, and what it refuses."""

import http.client
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import served

from fewstep import FewShotClassifier, FewShotRegressor, maml, protonet
from fewstep.commands.main import main
from fewstep.core import Descend
from fewstep.data.images.files import Reading
from fewstep.demo import characters, functions
from fewstep.demo.characters import named
from fewstep.demo.drawing import as_omniglot, drawing
from fewstep.demo.guard import BYTES, is_local
from fewstep.demo.models import Models, models
from fewstep.demo.server import Server
from fewstep.estimators.model import TrainedModel
from fewstep.evaluation.exact.sine_or_line import exact_posterior
from fewstep.evaluation.inner_loop import evaluation_copy
from fewstep.evaluation.simple import Simple
from fewstep.networks import Conv4

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*")

HOOK, BAR, ZED = [[[0.2, 0.2], [0.7, 0.2], [0.7, 0.8]]], [[[0.1, 0.5], [0.8, 0.4]]], [[[0, 0], [1, 0], [0, 1], [1, 1]]]
JSON = {"Content-Type": "application/json"}
JOIN, DONE = "/gradio_api/queue/join", "process_completed"
SESSIONS = count()


def send(server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """Status, headers and content of a reply."""
    connection = http.client.HTTPConnection(*server.socket.getsockname()[:2], timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def ask(server: Server, *inputs: Any) -> Any:
    """What the page of characters shows of its inputs, by the two requests that a page makes; an error is None."""
    page = send(server, "GET", "/")[2].decode()
    config = json.loads(re.findall(r"window\.gradio_config = (\{.*?\});</script>", page)[0])
    (told,) = (one["id"] for one in config["dependencies"] if one["api_name"] == "told")
    session = f"{next(SESSIONS)}"
    question = {"data": inputs, "fn_index": told, "session_hash": session}
    assert send(server, "POST", JOIN, json.dumps(question), JSON)[0] == 200
    events = send(server, "GET", f"/gradio_api/queue/data?session_hash={session}")[2].decode()
    (last,) = (event for event in map(json.loads, re.findall(r"data: (.*)", events)) if event["msg"] == DONE)
    return last["output"]["data"] if last["success"] else None


def test_pages_are_served_with_a_policy_that_forbids_every_other_place(server: Server) -> None:
    pages = {path: send(server, "GET", path) for path in ("/", "/functions", "/theme.css")}
    for path, (status, headers, _) in pages.items():
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        places = {word for words in policy.values() for word in words.split()}
        assert status == 200, path
        assert places == {"'none'", "'self'", "'unsafe-inline'", "'unsafe-eval'", "data:"}, path
        assert policy["default-src"] == "'none'", path
    assert b"omniglot-leo" in pages["/"][2]
    assert b"sine-line-leo, trained on 5 points" in pages["/functions"][2]


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


def test_a_page_of_a_method_without_codes_has_two_stages_and_no_paths(shipped: Models) -> None:
    model = TrainedModel(maml(Conv4(outputs=3), rate=0.4, steps=2), reading=Reading())
    with served(shipped._replace(characters=model)) as server:
        said, _, before, latent, after, moves, *pictures = ask(server, 3, HOOK, BAR, ZED, [], [], ZED)
    assert re.fullmatch(
        r"It is <b>[ABC]</b>, with probability [\d.]+ before adaptation, [\d.]+ after adaptation.", said
    )
    assert [stage["visible"] for stage in (before, latent, after)] == [True, False, True]
    assert (after["label"], moves["visible"]) == ("After adaptation", False)
    assert [bool(picture) for picture in pictures] == [True, True, True, False, False, True]


def test_functions_are_those_of_the_regressor_beside_the_exact_posterior(shipped: Models) -> None:
    x, y = np.array([-3.0, 0.5, 2.0]), np.array([1.0, -1.0, 2.5])
    found = functions.answer(shipped.functions, shipped.tasks.noise, np.stack([x, y], 1))
    regressor = FewShotRegressor("sine-line-leo", noise=0.3).fit(x[:, None], y)
    exact = exact_posterior(x[None], y[None])
    assert shipped.tasks.noise == 0.3
    np.testing.assert_allclose(found.learned.mean, regressor.predict(found.x[:, None]), atol=1e-6)
    np.testing.assert_allclose(found.exact.mean, exact.mean(found.x[None])[0], atol=1e-9)
    assert found.exact.line == pytest.approx(exact.line[0])
    assert found.learned.functions.shape == found.exact.functions.shape


def test_many_users_share_nothing(server: Server) -> None:
    """Each is answered as if alone, however questions arrive."""
    asked = [(2, a, b, [], [], [], ZED) for a in (HOOK, BAR, ZED) for b in (HOOK, BAR, ZED)]
    alone = [ask(server, *one) for one in asked]
    with ThreadPoolExecutor(6) as users:
        together = list(users.map(lambda one: ask(server, *one), asked * 2))
    assert together == alone * 2
    assert len({str(answer) for answer in alone}) == len(asked)  # so that one for another would be seen
    assert all(answer[0].startswith("It is <b>") for answer in alone)


@pytest.mark.parametrize(
    ("examples", "query", "why"),
    [
        ({}, ZED, "2 to 5 examples"),
        ([HOOK], ZED, "2 to 5 examples"),
        ([HOOK] * 6, ZED, "2 to 5 examples"),
        ([HOOK, []], ZED, "example B is empty"),
        ([HOOK, BAR], "data:image/png;base64,AAAA", "the query is no drawing"),
    ],
)
def test_what_is_no_question_is_refused(shipped: Models, examples: Any, query: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        characters.answer(shipped.characters, examples, query)


@pytest.mark.parametrize(
    "points", [[], [[0, 9]], [[-5.1, 0]], [[0]], [["0", 0]], [[0, 0]] * 21, "0,0", [[True, 0]], [[0, 1e999]]]
)
def test_what_are_no_points_is_refused(points: Any) -> None:
    with pytest.raises(ValueError, match="point"):
        functions.points(points)


def test_a_page_says_why_a_drawing_is_refused(server: Server) -> None:
    assert "no drawing" in ask(server, 2, HOOK, "data:image/png;base64,AAAA", [], [], [], ZED)[0]
    assert "more than" in ask(server, 2, HOOK, BAR, [], [], [], HOOK * 65)[0]
    assert ask(server, 7, HOOK, BAR, [], [], [], ZED) is None  # no number of the page's
    assert ask(server, 2, HOOK) is None
    assert "It is" in ask(server, 2, HOOK, BAR, [], [], [], ZED)[0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x89PNG\r\n\x1a\n", "no question"),
        (b"[" * 100_000, "no question"),
        (b'{"data": [NaN]}', "no number"),
        (b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}', "names a file"),
        (b'{"data": [[{"p\\u0061th": "http://127.0.0.1/", "meta": {"_type": "gradio.FileData"}}]]}', "names a file"),
    ],
)
def test_what_is_no_json_or_names_a_file_is_refused(server: Server, body: bytes, why: str) -> None:
    status, _, content = send(server, "POST", JOIN, body, JSON)
    assert (status, why in json.loads(content)["error"]) == (400, True), content


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/run/told"),
        ("POST", "/gradio_api/call/told"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/gradio_api/file=/etc/hostname"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("PUT", "/"),
    ],
)
def test_what_no_page_asks_is_not_there(server: Server, method: str, path: str) -> None:
    assert send(server, method, path, b"{}", JSON)[0] == 404


def test_uploads_are_refused(server: Server) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert send(server, "POST", JOIN, b"--x--", form)[0] == 415
    assert send(server, "POST", JOIN, None, {**JSON, "Content-Length": str(BYTES + 1)})[0] == 413
    assert send(server, "POST", JOIN, None, {**JSON, "Content-Length": "-1"})[0] in (400, 411)
    assert send(server, "POST", JOIN, iter([b"{}"]), {**JSON, "Transfer-Encoding": "chunked"})[0] == 411
    for path in ("/assets/../../../../pyproject.toml", "/static/..%2f..%2fblocks.py"):
        assert send(server, "GET", path)[0] in (403, 404), path


def test_pages_of_other_sites_cannot_ask(server: Server) -> None:
    own = server.url.removesuffix("/")
    for headers, status in (
        ({"Origin": own}, 200),
        ({"Origin": "http://example.org"}, 403),
        ({"Host": "example.org"}, 403),  # a name made to point here
    ):
        assert send(server, "GET", "/", None, headers)[0] == status
        if status != 200:
            assert send(server, "POST", JOIN, b"{}", {**JSON, **headers})[0] == status


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fewstep.commands.demo.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["demo"])
    assert "pip install 'fewstep[demo]'" in capsys.readouterr().err


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
