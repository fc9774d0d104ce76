"""Real processes, in the hands of a test: they start, freeze, die, and their line goes silent."""

import httpx2
import pytest

from pureboot.simulator.program import DidNotStart, Program, free_port

SERVER = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(trust_env=False, timeout=0.5) as client:
        yield client


@pytest.fixture
def programs():
    """Whatever a test started is gone after it."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


@pytest.fixture
def program(tmp_path, programs: list[Program]):
    def make(name: str, *arguments: str, **environment: str) -> Program:
        programs.append(Program(name, arguments, tmp_path / f"{name}.log", environment=environment))
        return programs[-1]

    return make


async def test_it_answers_until_it_is_killed(client, program):
    port = free_port()
    server = program("server", "-c", SERVER, str(port))
    assert await server.start_and_answer(client, f"http://127.0.0.1:{port}/") > 0
    assert server.running
    server.kill()
    assert not server.running
    with pytest.raises(httpx2.ConnectError):
        await client.get(f"http://127.0.0.1:{port}/")


async def test_one_that_ends_at_once_says_why(client, program):
    with pytest.raises(DidNotStart, match="last words"):
        await program("broken", "-c", "raise SystemExit('last words')").start_and_answer(client, "http://127.0.0.1:9/")


async def test_it_inherits_no_setting(program, monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__PORT", "1")
    show = "import os; print(sorted(n for n in os.environ if n.startswith('PUREBOOT')))"
    shown = program("shown", "-c", show, PUREBOOT_AGENT__HOST="x")
    assert await shown.run() == 0
    assert shown.tail() == "['PUREBOOT_AGENT__HOST']"


async def test_a_frozen_line_is_silent_and_a_thawed_one_goes_on(client, program):
    near, far = free_port(), free_port()
    server = program("server", "-c", SERVER, str(far))
    line = program("line", "-m", "pureboot.simulator.wan", str(near), str(far))
    await server.start_and_answer(client, f"http://127.0.0.1:{far}/")
    await line.start_and_answer(client, f"http://127.0.0.1:{near}/")
    line.freeze()
    with pytest.raises(httpx2.ReadTimeout):
        await client.get(f"http://127.0.0.1:{near}/")
    line.thaw()
    assert (await client.get(f"http://127.0.0.1:{near}/", timeout=5)).is_success
    server.kill()
    with pytest.raises(httpx2.TransportError):
        await client.get(f"http://127.0.0.1:{near}/", timeout=5)


def test_a_program_that_was_never_started_is_not_there(program):
    idle = program("idle", "-c", "pass")
    idle.kill()
    idle.freeze()
    assert not idle.running
    assert (idle.pid, idle.tail()) == (0, "")
