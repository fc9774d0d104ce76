"""What an administrator types, what central is asked, and what the terminal shows."""

import json

import pytest
from typer.testing import CliRunner

from pureboot.cli.main import app
from tests.fakes_cli import Canned, serving
from tests.support.tls import CERTIFICATE

SITE = {"id": "s1", "name": "lab", "agent_status": "online", "autonomy_level": "limited"}
MAC = "52:54:00:aa:bb:01"
NODE = {
    "id": "n1",
    "mac_address": MAC,
    "state": "discovered",
    "attempt": 0,
    "hostname": "",
    "version": 3,
    "home_site_id": "s1",
    "workflow_id": None,
}
WORKFLOW = {"id": "w1", "name": "linux", "kernel": "images/k", "initrd": ["images/i"]}
CONFLICT = {"id": "c1", "site_id": "s1", "node_mac": MAC, "conflict_type": "state_mismatch", "status": "pending"}
SETTLED_C1 = {"id": "c1", "node_mac": MAC, "outcome": "resolved", "reason": None}
REFUSED_C2 = {"id": "c2", "node_mac": "", "outcome": "refused", "reason": "This node is retired at central."}


def page(*items: object) -> dict[str, object]:
    return {"items": list(items), "next_cursor": None}


def answered(row, *, left=0, preview=False):
    resolved = int(row["outcome"] == "resolved")
    return {"preview": preview, "items": [row], "resolved": resolved, "refused": 1 - resolved, "left": left}


@pytest.fixture
def central(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with serving(Canned()) as canned:
        monkeypatch.setenv("PUREBOOT_URL", canned.url)
        monkeypatch.setenv("PUREBOOT_TOKEN", "adm1n")
        canned.says("GET", "/api/v1/sites", page(SITE))
        canned.says("GET", "/api/v1/workflows", page(WORKFLOW))
        canned.says("GET", "/api/v1/nodes", page(NODE))
        yield canned


def pureboot(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_lists_are_tables(central):
    output = pureboot("site", "list")
    assert output.splitlines()[0].split()[:2] == ["ID", "NAME"]
    assert output.splitlines()[1].split()[:3] == ["s1", "lab", "online"]
    assert central.last.headers["Authorization"] == "Bearer adm1n"


def test_lists_are_json_on_demand(central):
    assert json.loads(pureboot("node", "list", "--json")) == [NODE]


def test_an_empty_list_says_so(central):
    central.says("GET", "/api/v1/content", page())
    assert pureboot("content", "list") == "There is no content yet.\n"
    assert json.loads(pureboot("content", "list", "--json")) == []


def test_all_pages_are_read(central):
    central.answers["GET", "/api/v1/sites"] = [(200, {"items": [SITE], "next_cursor": "more"}), (200, page(SITE))]
    assert len(json.loads(pureboot("site", "list", "--json"))) == 2
    assert central.last.query["cursor"] == "more"


def test_hostile_text_stays_text(central):
    central.answers["GET", "/api/v1/nodes"] = [(200, page(NODE | {"hostname": "[red]\x1b[31mevil\n"}))]
    output = pureboot("node", "list")
    assert "[red]" in output
    assert "\x1b" not in output


def test_a_site_is_created_with_what_was_said_only(central):
    central.says("POST", "/api/v1/sites", SITE, status=201)
    output = pureboot("site", "create", "lab", "--autonomy-level", "full", "--offline-default-action", "discovery")
    assert central.last.json == {"name": "lab", "autonomy_level": "full", "offline_default_action": "discovery"}
    assert "pureboot site token s1" in output


def test_a_site_is_changed_by_its_name(central):
    central.says("PATCH", "/api/v1/sites/s1", SITE)
    pureboot("site", "update", "lab", "--conflict-resolution", "manual", "--parent", "s1", "--local-boot", "exit")
    assert central.last.json == {"conflict_resolution": "manual", "parent_id": "s1", "local_boot": "exit"}


def test_a_token_is_shown(central):
    central.says("POST", "/api/v1/sites/s1/agent-token", {"token": "once", "expires_at": "2026-01-01T00:00:00Z"}, 201)
    assert pureboot("site", "token", "lab") == "once\n"


def test_a_sites_credentials_are_revoked(central):
    central.says("POST", "/api/v1/sites/s1/agents/revoke", {"revoked": 1})
    assert pureboot("site", "revoke", "lab").startswith("1 credential of lab revoked. `pureboot site token lab`")


def test_a_site_is_deleted(central):
    central.says("DELETE", "/api/v1/sites/s1", status=204)
    assert pureboot("site", "delete", "lab") == "Site lab is deleted.\n"


def test_a_node_is_found_by_its_mac_in_any_spelling(central):
    pureboot("node", "show", "5254.00AA.BB01")
    assert central.last.query == {"mac": "52:54:00:aa:bb:01"}


def test_approving_assigns_the_workflow_first(central):
    central.says("PATCH", "/api/v1/nodes/n1", NODE)
    central.says("PATCH", "/api/v1/nodes/n1/state", NODE | {"state": "pending"})
    pureboot("node", "approve", "52:54:00:aa:bb:01", "--workflow", "linux")
    changes = [(asked.path, asked.json) for asked in central.asked if asked.method == "PATCH"]
    assert changes == [
        ("/api/v1/nodes/n1", {"workflow_id": "w1"}),
        ("/api/v1/nodes/n1/state", {"state": "pending", "comment": ""}),
    ]


def test_nodes_approved_before_one_is_refused_are_told_as_json(central):
    central.says("GET", "/api/v1/nodes/n1", NODE | {"workflow_id": "w1"})
    central.says("PATCH", "/api/v1/nodes/n1/state", NODE | {"state": "pending"})
    result = CliRunner().invoke(app, ["node", "approve", "n1", "nope", "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (1, [NODE | {"state": "pending"}])
    assert result.stderr == "pureboot: /api/v1/nodes/nope is not here.\n"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"state": "active"}, "pureboot node state 52:54:00:aa:bb:01 reprovision"),
        ({"state": "retired"}, "cannot become pending"),
        ({"workflow_id": None}, "has no workflow"),
    ],
)
def test_what_cannot_be_approved_is_left_as_it_is(central, node, said):
    central.answers["GET", "/api/v1/nodes"] = [(200, page(NODE | node))]
    workflow = [] if "workflow_id" in node else ["--workflow", "linux"]
    assert said in pureboot("node", "approve", MAC, *workflow, code=1)
    assert [asked.method for asked in central.asked if asked.method != "GET"] == []


def test_a_row_is_one_line_where_nobody_looks_and_names_its_site(central):
    long = NODE | {"workflow_id": "w1", "hostname": "a-host-name-that-takes-its-room" * 4, "id": "0" * 36}
    central.answers["GET", "/api/v1/nodes"] = [(200, page(long))]
    (row,) = pureboot("node", "list").splitlines()[1:]
    assert row.split()[0] == MAC
    assert row.split()[-1] == "0" * 36
    assert {"lab", "linux"} <= set(row.split())


def test_a_state_is_forced_with_a_reason(central):
    central.says("GET", "/api/v1/nodes/n1", NODE)
    central.says("PATCH", "/api/v1/nodes/n1/state", NODE | {"state": "active"})
    pureboot("node", "state", "n1", "active", "--force", "--comment", "seen it")
    assert central.last.json == {"state": "active", "comment": "seen it", "force": True}


def test_a_node_is_created_changed_and_deleted(central):
    central.says("POST", "/api/v1/nodes", NODE, status=201)
    central.says("PATCH", "/api/v1/nodes/n1", NODE)
    central.says("DELETE", "/api/v1/nodes/n1", status=204)
    pureboot("node", "create", MAC, "--site", "lab", "--workflow", "linux", "--state", "active")
    created = {"mac_address": MAC, "home_site_id": "s1", "workflow_id": "w1", "state": "active"}
    assert central.last.json == created
    pureboot("node", "update", MAC, "--tag", "a", "--tag", "b", "--version", "3")
    assert central.last.json == {"tags": ["a", "b"], "version": 3}
    pureboot("node", "update", MAC, "--site", "lab")
    assert central.last.json == {"home_site_id": "s1"}
    pureboot("node", "update", MAC, "--local-boot", "http-404")
    assert central.last.json == {"local_boot": "http-404"}
    pureboot("node", "update", MAC, "--local-boot", "site")
    assert central.last.json == {"local_boot": None}
    pureboot("node", "delete", MAC)
    assert central.last.method == "DELETE"


@pytest.mark.parametrize("what", ["history", "events"])
def test_what_happened_to_a_node(central, what):
    central.says("GET", f"/api/v1/nodes/n1/{what}", page({"seq": 1, "event": "first_boot", "to_state": "active"}))
    assert json.loads(pureboot("node", what, MAC, "--json"))[0]["seq"] == 1
    assert pureboot("node", what, MAC)


def test_what_a_node_said_beside_its_message_is_shown(central):
    row = {"occurred_at": "2026-01-28T10:00:00Z", "event": "burn_in", "metadata": {"disk": "sda", "errors": [1, 2]}}
    central.says("GET", "/api/v1/nodes/n1/events", page(row))
    assert "disk=sda, errors=1, 2" in pureboot("node", "events", MAC)


def test_a_sites_notices_are_a_field_a_line(central):
    notices = [{"severity": "critical", "message": "It is silent."}, {"severity": "warning", "message": "It is late."}]
    health = {"nodes": {"active": 3}, "problems": ["One.", "Two."], "notices": notices, "epoch_gaps": []}
    central.says("GET", "/api/v1/sites/s1/health", health)
    assert [line.split(maxsplit=1) for line in map(str.strip, pureboot("site", "health", "lab").splitlines())] == [
        ["nodes.active", "3"],
        ["problems", "One."],
        ["problems", "Two."],
        ["notices.1.severity", "critical"],
        ["notices.1.message", "It is silent."],
        ["notices.2.severity", "warning"],
        ["notices.2.message", "It is late."],
        ["epoch_gaps", "-"],
    ]


def test_nothing_is_cut_where_a_terminal_is_narrow(central, monkeypatch):
    central.says("GET", "/api/v1/nodes/n1", {"N" * 100: "V" * 100})
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = pureboot("node", "show", "n1")
    assert (output.count("N"), output.count("V")) == (100, 100)


def test_nodes_are_filtered(central):
    central.says("GET", "/api/v1/sites/s1/nodes", page(NODE, NODE | {"state": "active"}))
    assert len(json.loads(pureboot("node", "list", "--site", "lab", "--state", "active", "--json"))) == 1


def test_workflows(central):
    central.says("POST", "/api/v1/workflows", WORKFLOW, status=201)
    central.says("DELETE", "/api/v1/workflows/w1", status=204)
    pureboot("workflow", "create", "linux", "--kernel", "images/k", "--initrd", "images/i", "--done-when", "next_boot")
    assert central.last.json == {
        "name": "linux",
        "kernel": "images/k",
        "initrd": ["images/i"],
        "done_when": "next_boot",
    }
    assert "images/k" in pureboot("workflow", "show", "linux")
    assert "linux" in pureboot("workflow", "list")
    assert pureboot("workflow", "delete", "linux") == "Workflow linux is deleted.\n"


def test_content_is_deleted(central):
    central.says("DELETE", "/api/v1/content/images/k", status=204)
    assert pureboot("content", "delete", "images/k") == "images/k is deleted.\n"
    assert json.loads(pureboot("content", "delete", "images/k", "--json")) == {"deleted": "images/k"}


def test_boot_loaders_are_imported_from_a_folder(central, tmp_path):
    (tmp_path / "arm64").mkdir()
    for place in ("undionly.kpxe", "snponly.efi", "arm64/ipxe.efi", "e1000.rom"):
        (tmp_path / place).write_bytes(place.encode())
    names = ["undionly.kpxe", "snponly.efi", "ipxe-arm64.efi"]
    for name in names:
        central.says("PUT", f"/api/v1/content/bootloaders/{name}", {"size": 7, "digest": "sha256:abc"}, status=201)
    assert pureboot("content", "import-ipxe", str(tmp_path)).splitlines() == [
        f"bootloaders/{name} is at central: 7 bytes." for name in names
    ]
    assert [asked.body for asked in central.asked] == [b"undionly.kpxe", b"snponly.efi", b"arm64/ipxe.efi"]
    assert len(json.loads(pureboot("content", "import-ipxe", str(tmp_path), "--json"))) == 3


def test_a_folder_without_boot_loaders_is_said_and_how_to_get_them(central, tmp_path):
    output = pureboot("content", "import-ipxe", str(tmp_path), code=1)
    assert f"There is no boot loader of iPXE in {tmp_path}." in output
    assert "Install Debian's package `ipxe`" in output
    assert central.asked == []


def test_content_goes_up_and_down(central, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 600_000)
    central.says("PUT", "/api/v1/content/images/a%20b/k", {"digest": "sha256:abc", "size": 600_000}, status=201)
    central.says("GET", "/api/v1/content/images/a%20b/k", source.read_bytes())
    assert "600000 bytes, sha256:abc" in pureboot("content", "put", "images/a b/k", str(source))
    assert central.last.body == source.read_bytes()
    pureboot("content", "get", "images/a b/k", "-o", str(target))
    assert target.read_bytes() == source.read_bytes()


def test_a_failed_download_leaves_nothing(central, tmp_path):
    pureboot("content", "get", "images/none", "-o", str(tmp_path / "none"), code=1)
    assert list(tmp_path.iterdir()) == []


def test_conflicts_are_listed_and_resolved(central):
    central.says("GET", "/api/v1/conflicts", page(CONFLICT))
    central.says("POST", "/api/v1/conflicts/resolve", answered(SETTLED_C1))
    assert "state_mismatch" in pureboot("conflict", "list", "--site", "lab", "--match", "52:54")
    assert central.last.query == {"status": "pending", "site": "lab", "q": "52:54"}
    output = pureboot("conflict", "resolve", MAC, "keep_local", "--comment", "seen")
    assert central.last.json == {"resolution": "keep_local", "comment": "seen", "preview": False, "ids": ["c1"]}
    assert output == f"The conflict about {MAC} is settled: keep_local.\n"


def test_many_conflicts_are_resolved_at_once(central):
    path = ("POST", "/api/v1/conflicts/resolve")
    central.answers[path] = [(200, answered(SETTLED_C1, left=1)), (200, answered(REFUSED_C2))]
    output = pureboot("conflict", "resolve", "--all", "--type", "state_mismatch", "keep_local", code=1)
    assert central.last.json == {
        "resolution": "keep_local",
        "comment": "",
        "preview": False,
        "type": "state_mismatch",
    }
    assert f"The conflict about {MAC} is settled: keep_local." in output
    assert "The conflict about c2 is not settled: This node is retired at central." in output


def test_what_settling_would_do_is_said_first(central):
    central.says("GET", "/api/v1/conflicts", page(CONFLICT))
    central.says("POST", "/api/v1/conflicts/resolve", answered(SETTLED_C1, preview=True))
    output = pureboot("conflict", "resolve", "c1", "merge", "--preview")
    assert central.last.json["preview"] is True
    assert output == f"The conflict about {MAC} would be settled: merge.\n"


def test_which_conflicts_has_to_be_said(central):
    assert "choose with --all" in pureboot("conflict", "resolve", "keep_local", code=2)
    assert "choose with --all" in pureboot("conflict", "resolve", "c1", "keep_local", "--all", code=2)


def test_a_conflict_is_found_by_a_mac_in_any_spelling(central):
    central.says("GET", "/api/v1/conflicts", page(CONFLICT | {"version": 4}))
    central.says("POST", "/api/v1/conflicts/resolve", answered(SETTLED_C1))
    central.says("POST", "/api/v1/sites/s1/conflicts/c1/undo", CONFLICT)
    pureboot("conflict", "resolve", "52-54-00-AA-BB-01", "merge")
    assert central.last.json["ids"] == ["c1"]
    pureboot("conflict", "undo", "5254.00aa.bb01")
    assert central.last.path.endswith("/c1/undo")


def test_a_decision_is_taken_back(central):
    settled = CONFLICT | {"status": "resolved", "version": 4}
    central.says("GET", "/api/v1/conflicts", page(settled))
    central.says("POST", "/api/v1/sites/s1/conflicts/c1/undo", CONFLICT)
    assert pureboot("conflict", "undo", "c1") == f"The conflict about {MAC} is open again.\n"
    assert central.last.json == {"comment": "", "version": 4}


class TestWhatGoesWrong:
    def test_central_says_what_and_what_to_do(self, central):
        error = {"error": {"code": "conflict", "message": "The site has nodes.", "hint": "Move them first."}}
        central.says("DELETE", "/api/v1/sites/s1", error, status=409)
        assert pureboot("site", "delete", "lab", code=1) == "pureboot: The site has nodes.\nMove them first.\n"

    def test_an_answer_that_is_not_centrals(self, central):
        central.answers["GET", "/api/v1/sites"] = [(502, b"<html>")]
        assert pureboot("site", "list", code=1) == "pureboot: It answered HTTP 502.\n"

    def test_nobody_answers(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("PUREBOOT_TOKEN", "x")
        said = "pureboot: Central cannot be reached at http://127.0.0.1:9: the connection is refused.\n"
        assert pureboot("site", "list", code=1) == said

    def test_an_agent_is_not_central(self, central):
        del central.answers["GET", "/api/v1/sites"]
        assert pureboot("site", "list", code=1) == "pureboot: /api/v1/sites is not here.\n"
        central.says("GET", "/health", {"product": "pureboot-agent"})
        said = f"pureboot: What answers at {central.url} is a site's agent, not central.\nName central in PUREBOOT_URL"
        assert pureboot("site", "list", code=1).startswith(said)

    def test_an_unknown_host(self, central, monkeypatch):
        monkeypatch.setenv("PUREBOOT_URL", "http://nowhere.invalid")
        said = "pureboot: Central cannot be reached at http://nowhere.invalid: its host name is not found ("
        assert pureboot("site", "list", code=1).startswith(said)

    def test_https_where_there_is_none(self, central, monkeypatch):
        monkeypatch.setenv("PUREBOOT_URL", url := central.url.replace("http:", "https:"))
        assert pureboot("site", "list", code=1) == (
            f"pureboot: Central cannot be reached at {url}: what listens there does not speak TLS.\n"
            "Is it http:// instead of https://?\n"
        )

    def test_a_certificate_that_is_not_trusted(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_TOKEN", "x")
        with serving(Canned(), tls=True) as central:
            monkeypatch.setenv("PUREBOOT_URL", central.url)
            assert pureboot("site", "list", code=1) == (
                f"pureboot: Central cannot be reached at {central.url}: its certificate is not trusted "
                "(self-signed certificate).\n"
                "If a CA of your own has signed it, name that CA's PEM file in SSL_CERT_FILE.\n"
            )
            monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
            central.says("GET", "/api/v1/sites", page(SITE))
            assert "lab" in pureboot("site", "list")

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("http://kim:s3cret@127.0.0.1:9", 1),
            ("http://kim:s3cret@[::1", 2),
            ("http://kim:[s3cret@127.0.0.1:9", 2),
            ("http://kim:a/s3cret@127.0.0.1:9", 2),
            ("http://kim:s3cret@127.0.0.1:s", 2),
            ("http://kim:p@s3cret@127.0.0.1:0", 2),
            ("htp://kim:s3cret@127.0.0.1", 2),
            ("kim:s3cret@127.0.0.1", 2),
            ("http://kim:s3cret\n@127.0.0.1", 2),
        ],
    )
    def test_a_password_in_the_address_is_not_shown(self, monkeypatch, url, code):
        monkeypatch.setenv("PUREBOOT_URL", url)
        monkeypatch.setenv("PUREBOOT_TOKEN", "x")
        said = pureboot("site", "list", code=code)
        assert "s3cret" not in said
        assert "127.0.0.1" in said or "::1" in said

    def test_a_stranger_at_an_address_with_a_password(self, central, monkeypatch):
        monkeypatch.setenv("PUREBOOT_URL", central.url.replace("//", "//kim:s3cret@"))
        central.answers["GET", "/api/v1/sites"] = [(200, [])]
        url = f"{central.url}/api/v1/sites"
        assert pureboot("site", "list", code=1) == f"pureboot: What answers at {url} is not PureBoot.\n"

    @pytest.mark.parametrize(
        "url", ["nonsense", "http://", "http://[", "ftp://x", "http://a..b", "http://a b", "http://a\x7f", "http://a\n"]
    )
    def test_the_address_is_none(self, monkeypatch, url):
        monkeypatch.setenv("PUREBOOT_URL", url)
        monkeypatch.setenv("PUREBOOT_TOKEN", "x")
        assert "PUREBOOT_URL" in pureboot("site", "list", code=2)

    def test_there_is_no_token(self, central, monkeypatch):
        monkeypatch.delenv("PUREBOOT_TOKEN")
        assert "PUREBOOT_TOKEN_FILE" in pureboot("site", "list", code=2)

    @pytest.mark.parametrize("token", ["tök€n", "two\nlines"])
    def test_a_token_that_no_header_carries_is_not_shown(self, central, monkeypatch, token):
        monkeypatch.setenv("PUREBOOT_TOKEN", token)
        output = pureboot("site", "list", code=2)
        assert "pureboot: The token is none of PureBoot's" in output
        assert token not in output
        assert central.asked == []

    @pytest.mark.parametrize(
        ("name", "value"), [("HTTP_PROXY", "foo://x"), ("ALL_PROXY", "socks5://x:1"), ("SSL_CERT_FILE", "/none.pem")]
    )
    def test_an_environment_that_leads_nowhere(self, central, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        output = pureboot("site", "list", code=2)
        assert output.startswith("pureboot: The environment names what cannot be used: ")
        assert name in output

    def test_the_token_is_in_a_file(self, central, monkeypatch, tmp_path):
        monkeypatch.delenv("PUREBOOT_TOKEN")
        monkeypatch.setenv("PUREBOOT_TOKEN_FILE", str(tmp_path / "admin-token"))
        assert "cannot be read" in pureboot("site", "list", code=2)
        (tmp_path / "admin-token").write_text("from-file\n")
        pureboot("site", "list")
        assert central.last.headers["Authorization"] == "Bearer from-file"

    def test_names_that_are_none_or_two(self, central):
        assert "There is no site 'other'" in pureboot("site", "show", "other", code=1)
        central.answers["GET", "/api/v1/sites"] = [(200, page(SITE, SITE | {"id": "s2"}))]
        assert "Say which by its id: s1, s2." in pureboot("site", "show", "lab", code=1)

    def test_a_conflict_that_is_none(self, central):
        central.says("GET", "/api/v1/conflicts", page())
        assert "no pending conflict 'c9'" in pureboot("conflict", "resolve", "c9", "keep_central", code=1)

    def test_a_mac_nobody_has(self, central):
        central.answers["GET", "/api/v1/nodes"] = [(200, page())]
        assert "No node has the MAC address" in pureboot("node", "show", "52:54:00:00:00:99", code=1)

    def test_a_name_that_is_no_content(self, central, tmp_path):
        (tmp_path / "k").write_bytes(b"k")
        assert "CATEGORY/PATH" in pureboot("content", "put", "vmlinuz", str(tmp_path / "k"), code=2)
        for name in ("images/", "images/../../people/kim", "images//k"):
            pureboot("content", "delete", name, code=2)
        assert central.asked == []

    def test_a_file_that_is_not_there(self, central, tmp_path):
        assert "cannot be read" in pureboot("content", "put", "images/k", str(tmp_path / "k"), code=1)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("nonsense",),
            ("node", "state", "n1", "exploded"),
            ("node", "assign", "linux"),
            ("conflict", "resolve", "c1", "toss_a_coin"),
            ("workflow", "create", "w", "--template", "x"),
            ("site", "create", "x", "--cache-max-size-gb", "nan"),
            ("site", "update", "lab", "--offline-install-max-age", "inf"),
            ("alert", "acknowledge", ""),
            ("alert", "acknowledge", ".."),
        ],
    )
    def test_usage(self, central, arguments):
        pureboot(*arguments, code=2)
        assert [asked.method for asked in central.asked if asked.method != "GET"] == []

    def test_bytes_that_are_no_text(self, central):
        for arguments in (("node", "show", "\udcff"), ("node", "list", "--search", "\udcff")):
            assert "utf-8" in pureboot(*arguments, code=2).lower()


def test_a_persons_password_is_read_and_not_shown(central):
    central.says("POST", "/api/v1/people", {"name": "kim", "role": "operator"}, status=201)
    result = CliRunner().invoke(app, ["person", "add", "kim", "--role", "operator"], input="long enough\n")
    assert (result.exit_code, result.output) == (0, "kim can sign in, as operator.\n")
    assert central.last.json == {"name": "kim", "role": "operator", "password": "long enough"}
    assert CliRunner().invoke(app, ["person", "add", "kim"], input="").exit_code == 2
    assert CliRunner().invoke(app, ["person", "add", "kim"], input=b"\xff\n").exit_code == 2


def test_a_person_is_changed_and_removed(central):
    central.says("PATCH", "/api/v1/people/kim", {"name": "kim", "role": "viewer"})
    pureboot("person", "set", "kim", "--role", "viewer", "--disable")
    assert central.last.json == {"role": "viewer", "disabled": True}
    central.says("DELETE", "/api/v1/people/kim", status=204)
    assert pureboot("person", "remove", "kim") == "kim is removed.\n"


def test_a_token_of_a_role_is_made(central):
    central.says("POST", "/api/v1/tokens", {"name": "ci", "role": "viewer", "token": "s3cret"}, status=201)
    assert pureboot("token", "create", "ci", "--role", "viewer") == "s3cret\n"


def test_a_workflow_is_assigned_to_many(central):
    done = {"preview": False, "matched": 3, "changed": 2, "unchanged": 1, "refused": []}
    central.says("POST", "/api/v1/nodes/assign", done)
    assert pureboot("node", "assign", "linux", "--site", "lab") == "2 changed, 1 are like that already.\n"
    assert central.last.json == {"filter": {"site": "lab"}, "preview": False, "workflow_id": "linux"}
    pureboot("node", "assign", "none", MAC)
    assert central.last.json == {"ids": ["n1"], "preview": False, "workflow_id": None}


def test_a_refusal_among_many_is_told_and_fails(central):
    refused = [{"node_id": "n1", "mac_address": MAC, "code": "illegal_edge", "message": "It cannot."}]
    done = {"preview": False, "matched": 1, "changed": 0, "unchanged": 0, "refused": refused}
    central.says("POST", "/api/v1/nodes/move", done)
    assert f"{MAC}: It cannot." in pureboot("node", "move", "pending", MAC, code=1)


STRANGE_NAMES = "München-馬場-😀"


IN_LATIN_1 = r"München-\u99ac\u5834-\ud83d\ude00"


@pytest.mark.parametrize(("charset", "told"), [("latin-1", IN_LATIN_1), ("utf-8", STRANGE_NAMES)])
def test_a_terminal_that_lacks_a_character_shows_it_escaped(central, charset, told):
    named = NODE | {"hostname": STRANGE_NAMES}
    central.answers["GET", "/api/v1/nodes"] = [(200, page(named))]
    terminal = CliRunner(charset=charset)
    said = [terminal.invoke(app, words).output for words in (["node", "list"], ["node", "list", "--json"])]
    assert [told in each for each in said] == [True, True], said
    assert json.loads(said[1]) == [named]


def test_a_conflict_is_shown_where_there_are_no_arrows(central):
    stage = {"state": "installing", "attempt": 1}
    link = {"origin": stage, "target": stage, "occurred_at": "2026-01-28T10:00:00Z", "comment": STRANGE_NAMES}
    view: dict[str, object] = {
        **CONFLICT,
        "site_name": "lab",
        "base": stage,
        "local_state": "installing",
        "local_updated_at": None,
    }
    view |= {"local_uncertainty_seconds": 2.0, "chain": [link], "central_state": "pending", "central_updated_at": None}
    view |= {"central_history": [], "previews": [], "decisions": []}
    central.says("GET", "/api/v1/conflicts", page(CONFLICT))
    central.says("GET", "/api/v1/sites/s1/conflicts/c1", view)
    result = CliRunner(charset="latin-1").invoke(app, ["conflict", "show", "c1"])
    assert result.exit_code == 0, result.output
    assert "(±2 s)" in result.output
    assert "installing/1 \\u2192 installing/1  München-\\u99ac" in result.output


def test_a_time_line_says_when_central_knew(central):
    row = {"occurred_at": "2026-01-28T10:00:00Z", "recorded_at": "2026-01-28T12:00:00Z", "actor": "", "message": ""}
    event = row | {"kind": "event", "event": "install_complete"}
    step = row | {"kind": "step", "from_state": "installing", "to_state": "installed", "forced": False}
    central.says("GET", "/api/v1/nodes/n1/timeline", page(step, event))
    lines = pureboot("node", "timeline", MAC).splitlines()
    assert "2026-01-28 12:00:00Z" in lines[1]
    assert "installing -> installed" in lines[1]
    assert "install_complete" in lines[2]
