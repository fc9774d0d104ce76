"""`pureboot agent`, against a central and an agent that say what they were told to say."""

import json
import stat

import pytest
from typer.testing import CliRunner

from pureboot.agent import identity
from pureboot.cli.main import app
from pureboot.simulator.program import free_port
from tests.fakes_cli import Canned, serving
from tests.support.tls import CERTIFICATE

CREDENTIAL = {"agent_id": "a1", "site_id": "s1", "credential": "secret"}
ITEM = {"id": "q1", "item_type": "event", "lane": "n1", "status": "failed", "attempts": 3, "last_error": "no"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def server():
    with serving(Canned()) as canned:
        yield canned


def pureboot(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def init(server: Canned, *token: str, site: str = "s1", code: int = 0, input: str | bytes = "") -> str:
    flags = ("--central-url", server.url, "--site", site, "--data-dir", "here", *(token or ("--token", "once")))
    result = CliRunner().invoke(app, ["agent", "init", *flags], input=input)
    assert result.exit_code == code, result.output
    return result.output


def local(server: Canned, *arguments: str) -> str:
    return pureboot("agent", *arguments, "--port", server.url.rpartition(":")[2])


class TestInit:
    def test_trades_the_token_for_a_credential(self, server, tmp_path):
        server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
        assert "pureboot agent run --data-dir here" in init(server)
        assert server.last.json["token"] == "once"
        assert "Authorization" not in server.last.headers
        assert identity.load(tmp_path / "here") == identity.Identity("a1", "s1", server.url, "secret")

    def test_takes_the_token_where_no_list_of_processes_shows_it(self, server, monkeypatch):
        server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
        init(server, "--token", "-", input="piped\n")
        assert server.last.json["token"] == "piped"
        monkeypatch.setenv("PUREBOOT_AGENT_TOKEN", "of the environment")
        init(server, "--data-dir", "here")
        assert server.last.json["token"] == "of the environment"

    def test_makes_a_folder_for_its_owner_only_and_leaves_one_that_is_there(self, server, tmp_path):
        server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
        for mode in (0o700, 0o755):
            init(server)
            assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == mode
            (tmp_path / "here").chmod(0o755)

    def test_an_agent_is_not_central(self, server):
        server.says("GET", "/health", {"product": "pureboot-agent"})
        assert f"What answers at {server.url} is a site's agent, not central.\n" in init(server, code=1)

    def test_a_certificate_that_is_not_trusted(self, monkeypatch):
        with serving(Canned(), tls=True) as server:
            output = init(server, code=1)
            assert "its certificate is not trusted (self-signed certificate).\n" in output
            assert "`ca_file` of agent.toml, or PUREBOOT_AGENT__CA_FILE" in output
            monkeypatch.setenv("PUREBOOT_AGENT__CA_FILE", str(CERTIFICATE))
            server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
            assert "This is agent a1" in init(server)

    @pytest.mark.parametrize(
        ("token", "input"), [(("--token", "-"), b"\n"), (("--token", "-"), b"\xff\n"), (("--data-dir", "here"), b"")]
    )
    def test_asks_nobody_without_a_token(self, server, token, input):
        assert "token" in init(server, *token, code=2, input=input)
        assert server.asked == []

    def test_shows_no_credential(self, server):
        server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
        assert "secret" not in init(server)

    def test_says_for_which_site(self, server):
        server.says("POST", "/api/v1/agents/register", CREDENTIAL, status=201)
        init(server, site="lab")
        assert server.last.json["site"] == "lab"

    def test_says_that_a_token_is_used(self, server):
        error = {"error": {"code": "token_used", "message": "The token was used already.", "hint": "Make a new one."}}
        server.says("POST", "/api/v1/agents/register", error, status=403)
        assert init(server, code=1) == "pureboot: The token was used already.\nMake a new one.\n"

    def test_trusts_only_the_ca_of_the_settings(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("PUREBOOT_AGENT__CA_FILE", str(tmp_path / "none.pem"))
        assert "ca_file names" in init(server, code=2)
        assert server.asked == []

    def test_says_that_the_answer_is_not_centrals(self, server):
        server.says("POST", "/api/v1/agents/register", b"<html>hello</html>")
        assert "pureboot: " in init(server, code=1)
        server.answers["POST", "/api/v1/agents/register"] = [(200, {"hello": "world"})]
        assert "pureboot: " in init(server, code=1)


class TestTheOneOnThisHost:
    def test_status(self, server):
        server.says("GET", "/api/v1/agent/status", {"status": "offline", "services": {"http": "running"}, "site": None})
        lines = [line.split() for line in local(server, "status").splitlines()]
        assert lines == [["status", "offline"], ["services.http", "running"], ["site", "-"]]
        assert json.loads(local(server, "status", "--json"))["status"] == "offline"

    def test_queue(self, server):
        server.says("GET", "/api/v1/agent/queue", {"items": [ITEM], "next_cursor": None})
        assert local(server, "queue").splitlines()[1].split()[:5] == ["q1", "event", "n1", "failed", "3"]
        assert json.loads(local(server, "queue", "--json")) == [ITEM]

    def test_queue_page_by_page(self, server):
        server.says("GET", "/api/v1/agent/queue", {"items": [ITEM], "next_cursor": "waiting.7"})
        server.says("GET", "/api/v1/agent/queue", {"items": [ITEM], "next_cursor": None})
        assert len(json.loads(local(server, "queue", "list", "--json"))) == 2
        assert server.last.query["cursor"] == "waiting.7"

    def test_requeue(self, server):
        server.says("POST", "/api/v1/agent/queue/q1/requeue", {"id": "q1", "status": "pending"})
        assert local(server, "queue", "requeue", "q1") == "Item q1 goes out again.\n"

    def test_discard_names_who_and_why(self, server, monkeypatch):
        monkeypatch.setenv("LOGNAME", "ada")
        server.says("POST", "/api/v1/agent/queue/q1/discard", {"id": "q1", "status": "discarded"})
        said = local(server, "queue", "discard", "q1", "--reason", "swapped")
        assert said == "Item q1 is given up; central will be told, unless it had refused it.\n"
        assert server.last.json == {"reason": "swapped", "person": "ada"}

    def test_clear_failed(self, server):
        server.says("DELETE", "/api/v1/agent/queue/failed", {"cleared": 3})
        said = local(server, "queue", "clear-failed")
        assert said == "3 failed items are given up; central will be told of those it had not refused.\n"
        assert json.loads(local(server, "queue", "clear-failed", "--json")) == {"cleared": 3}

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ({"status": "applied", "queue_id": "q1"}, "central has confirmed it"),
            ({"status": "already", "queue_id": None}, "it was said before"),
            ({"status": "queued", "queue_id": "q1"}, "it waits for central"),
            ({"status": "rejected", "queue_id": "q1", "reason": "no"}, "central refused it: no"),
            (
                {"status": "conflict", "queue_id": "q1", "conflict_id": "c1"},
                "central has the node otherwise; see conflict c1",
            ),
        ],
    )
    def test_what_a_move_has_come_to(self, server, answer, said):
        answer = {"id": "n1", "state": "pending", "offline": False} | answer
        server.says("POST", "/api/v1/agent/nodes/n1/state", answer)
        assert local(server, "move", "n1", "pending") == f"The node is pending here: {said}.\n"

    def test_a_conflict_that_only_the_site_suspected_is_settled_there(self, server):
        server.says("GET", "/api/v1/agent/conflicts", {"items": [], "next_cursor": None})
        answer = {"id": "c1", "status": "applied", "conflict_id": "c1", "resolution": "keep_local"}
        server.says("POST", "/api/v1/agent/conflicts/c1/resolve", answer)
        said = "keep_local: it is settled here, and central knows nothing of it.\n"
        assert local(server, "resolve", "c1", "keep_local") == said

    @pytest.mark.parametrize("words", [("requeue",), ("discard",), ("list", "q1"), ("clear-failed", "q1"), ("burn",)])
    def test_queue_words_that_make_no_sense(self, server, words):
        pureboot("agent", "queue", *words, code=2)
        assert server.asked == []

    def test_the_cache_is_tidied(self, server):
        server.says("POST", "/api/v1/agent/cache/evict", {"evicted": ["images/k"], "freed": 5})
        assert local(server, "cache", "evict") == "1 files went, 5 bytes are free.\n"
        server.says("DELETE", "/api/v1/agent/cache", {"evicted": [], "freed": 0})
        assert json.loads(local(server, "cache", "clear", "--json")) == {"evicted": [], "freed": 0}
        assert local(server, "cache", "clear").endswith("What the site's policy asks for is fetched again.\n")
        server.says("DELETE", "/api/v1/agent/cache/images/a%20b", status=204)
        assert local(server, "cache", "remove", "images/a b") == (
            "images/a b is removed. What the site's policy asks for is fetched again.\n"
        )
        server.says("POST", "/api/v1/agent/cache/verify", {"files": 3}, status=202)
        assert local(server, "cache", "verify").startswith("3 files are read again")

    @pytest.mark.parametrize("words", [("remove",), ("clear", "images/k"), ("list", "images/k"), ("burn",)])
    def test_cache_words_that_make_no_sense(self, server, words):
        pureboot("agent", "cache", *words, code=2)
        assert server.asked == []

    @pytest.mark.parametrize(
        ("command", "sentence"),
        [("queue", "The queue is empty"), ("conflicts", "Site and central agree."), ("cache", "The cache is empty.")],
    )
    def test_nothing(self, server, command, sentence):
        server.says("GET", f"/api/v1/agent/{command}", {"items": [], "next_cursor": None})
        assert sentence in local(server, command)

    def test_sync(self, server):
        server.says("POST", "/api/v1/agent/sync", {"items": 2, "fetched": 1, "missing": ["images/k"]})
        assert local(server, "sync") == "Heard central out: 2 changes, 1 files fetched. Missing: images/k.\n"

    @pytest.mark.parametrize(
        ("host", "shown"),
        # The last is a name as any other to the command, and the only one that leads to this server.
        [("0.0.0.0", None), ("127.0.0.1", None), ("localhost", None), ("127.1", "Bearer s1te")],
    )
    def test_is_found_by_its_settings_and_shown_the_token_only_where_it_asks_for_it(
        self, server, tmp_path, host, shown
    ):
        (tmp_path / "here").mkdir()
        port = server.url.rpartition(":")[2]
        (tmp_path / "here" / "agent.toml").write_text(f'host = "{host}"\nport = {port}\n')
        (tmp_path / "here" / "admin-token").write_text("s1te\n")
        server.says("GET", "/api/v1/agent/cache", {"items": [], "next_cursor": None})
        pureboot("agent", "cache", "--data-dir", "here")
        assert server.last.headers.get("Authorization") == shown

    def test_a_conflict_is_found_by_a_mac_in_any_spelling(self, server):
        conflict = {"id": "c1", "node_mac": "52:54:00:aa:bb:01"}
        server.says("GET", "/api/v1/agent/conflicts", {"items": [conflict], "next_cursor": None})
        server.says("POST", "/api/v1/agent/conflicts/c1/resolve", {"status": "applied", "queue_id": "q1"})
        assert "central has confirmed it" in local(server, "resolve", "52-54-00-AA-BB-01", "merge")

    @pytest.mark.parametrize("mac", ["52-54-00-AA-BB-01", "5254.00aa.bb01", "525400AABB01"])
    def test_a_node_is_found_by_a_mac_in_any_spelling(self, server, mac):
        server.says("GET", "/api/v1/nodes", {"items": [{"id": "n1"}], "next_cursor": None})
        server.says("POST", "/api/v1/agent/nodes/n1/state", {"status": "applied", "state": "active"})
        assert "The node is active here" in local(server, "move", mac, "active")

    @pytest.mark.parametrize(("host", "asked"), [("::", "[::1]"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1")])
    def test_is_asked_where_it_listens(self, monkeypatch, host, asked):
        monkeypatch.setenv("PUREBOOT_AGENT__HOST", host)
        assert f"No agent answers at http://{asked}:9:" in pureboot("agent", "status", "--port", "9", code=1)

    def test_a_token_that_no_header_carries(self, tmp_path):
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "admin-token").write_bytes(b"\xff")
        (tmp_path / "here" / "agent.toml").write_text('host = "192.0.2.1"\n')
        assert "The token is none of PureBoot's" in pureboot("agent", "status", "--data-dir", "here", code=2)

    def test_does_not_run(self):
        port = str(free_port())
        for command in ("status", "queue", "conflicts", "cache", "sync"):
            output = pureboot("agent", command, "--port", port, code=1)
            assert output == (
                f"pureboot: No agent answers at http://127.0.0.1:{port}: the connection is refused.\n"
                "Start it with `pureboot agent run`.\n"
            )


class TestWhatStopsTheStart:
    def test_no_identity(self):
        output = pureboot("agent", "run", "--port", "0", "--data-dir", "nowhere", code=2)
        assert output.startswith("pureboot: There is no agent in data_dir nowhere.")

    def test_a_bad_setting(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_AGENT__QUEUE_BATCH_SIZE", "0")
        assert "queue_batch_size = '0' from the environment variable" in pureboot("agent", "run", code=2)

    def test_a_bad_setting_of_central(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_CENTRAL__PORT", "high")
        assert "port = 'high' from the environment variable" in pureboot("central", "run", code=2)

    def test_a_missing_file(self):
        assert "none.toml cannot be read" in pureboot("central", "run", "--config", "none.toml", code=2)

    def test_a_port_that_is_taken(self, server, tmp_path):
        identity.save(tmp_path, identity.Identity("a1", "s1", server.url, "secret"))
        port = server.url.rpartition(":")[2]
        flags = ("--host", "127.0.0.1", "--port", port, "--data-dir", str(tmp_path))
        assert f"Cannot listen on 127.0.0.1, port {port}" in pureboot("agent", "run", *flags, code=2)
