"""The supervisor with real, small processes: order, readiness, restarts, giving up, stopping, one owner per folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from schemas.errors import SettingsError
from stack.errors import FolderInUseError, ProcessFailedError, ServicePreparationError
from stack.folder import birth_of, read_state, running_supervisor
from stack.processes import Phase, Probe, ProcessSpec, ProcessState, RestartPolicy, start_waves
from stack.supervisor import Supervisor

QUICK = RestartPolicy(first_delay_seconds=0.02, longest_delay_seconds=0.1)
LIVES = "trap 'echo asked to stop; exit 0' TERM; echo started; touch {ready}; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; touch {ready}; while :; do sleep 0.05; done"
REPOSITORY = Path(__file__).parents[3]


def exists(path: Path) -> Probe:
    """Return a probe that is ready once the file exists; the processes of these tests create one."""

    async def probe() -> bool:
        return await asyncio.to_thread(path.exists)

    return probe


def process(folder: Path, name: str, *, script: str = LIVES, **fields: object) -> ProcessSpec:
    """Return a shell that creates the file ``NAME.ready`` and runs until it is asked to stop."""
    ready = folder / f"{name}.ready"
    command = ("/bin/sh", "-c", script.format(ready=ready, folder=folder))
    return ProcessSpec(**{"name": name, "command": command, "ready": exists(ready), "grace_seconds": 5.0} | fields)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, at most ten seconds."""
    try:
        async with asyncio.timeout(10):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited ten seconds for: {what}")


async def test_each_process_starts_only_when_its_dependencies_are_ready(tmp_path: Path) -> None:
    """A process starts only after its dependencies are ready."""
    first = process(tmp_path, "first", script="sleep 0.3; " + LIVES)
    second = process(
        tmp_path, "second", script="test -e {folder}/first.ready || exit 9; " + LIVES, depends_on=("first",)
    )
    async with Supervisor([second, first], tmp_path, policy=QUICK) as supervisor:
        await supervisor.start()
        assert [(s.name, s.phase, s.restarts) for s in supervisor.states()] == [
            ("second", Phase.READY, 0),
            ("first", Phase.READY, 0),
        ]


async def test_a_named_start_brings_its_dependencies_and_leaves_the_rest(tmp_path: Path) -> None:
    """A named start includes the dependencies and leaves other processes alone."""
    specs = [
        process(tmp_path, "database"),
        process(tmp_path, "broker", depends_on=("database",)),
        process(tmp_path, "worker", depends_on=("broker",)),
    ]
    async with Supervisor(specs, tmp_path) as supervisor:
        await supervisor.start("broker")
        assert [s.phase for s in supervisor.states()] == [Phase.READY, Phase.READY, Phase.STOPPED]
        before = supervisor.state("database").pid
        await supervisor.start()
        assert supervisor.state("worker").phase is Phase.READY
        assert supervisor.state("database").pid == before


async def test_a_killed_process_comes_back(tmp_path: Path) -> None:
    """A killed process is restarted and becomes ready again."""
    async with Supervisor([process(tmp_path, "worker")], tmp_path, policy=QUICK) as supervisor:
        await supervisor.start()
        first = supervisor.state("worker")
        supervisor.kill("worker")
        await until(lambda: supervisor.state("worker").restarts == 1, "a restart")
        await until(lambda: supervisor.state("worker").phase is Phase.READY, "readiness after the restart")
        again = supervisor.state("worker")
        assert again.pid != first.pid
        assert again.last_exit == "signal SIGKILL"


async def test_a_stopped_process_rests_until_it_is_started_again(tmp_path: Path) -> None:
    """A stopped process stays stopped until it is started again."""
    specs = [process(tmp_path, "spare"), process(tmp_path, "other")]
    async with Supervisor(specs, tmp_path, policy=QUICK) as supervisor:
        await supervisor.start()
        first = supervisor.state("spare").pid
        await supervisor.stop("spare")
        await supervisor.stop("spare")
        assert (supervisor.state("spare").phase, supervisor.state("spare").pid) == (Phase.STOPPED, None)
        assert supervisor.state("other").phase is Phase.READY
        await supervisor.start("spare")
        state = supervisor.state("spare")
        assert (state.phase, state.restarts) == (Phase.READY, 0)
        assert state.pid not in {None, first}


async def test_a_process_waits_for_its_dependency_to_return(tmp_path: Path) -> None:
    """After a death, a process waits until its dependency is ready again."""
    database = process(tmp_path, "database", script="sleep 0.3; " + LIVES)
    worker = process(tmp_path, "worker", depends_on=("database",))
    seen: list[tuple[Phase, Phase]] = []

    def watch(states: tuple[ProcessState, ...]) -> None:
        seen.append((states[0].phase, states[1].phase))

    async with Supervisor([database, worker], tmp_path, policy=QUICK, on_change=watch) as supervisor:
        await supervisor.start()
        seen.clear()
        (tmp_path / "database.ready").unlink()
        supervisor.kill("database")
        await until(lambda: supervisor.state("database").phase is not Phase.READY, "the database's death")
        supervisor.kill("worker")
        await until(lambda: supervisor.state("worker").restarts == 1, "the worker's return")
        await until(lambda: supervisor.state("worker").phase is Phase.READY, "the worker's readiness")
    assert not [pair for pair in seen if pair[1] is Phase.STARTING and pair[0] is not Phase.READY]


async def test_it_gives_up_loudly_and_stops_the_others(tmp_path: Path) -> None:
    """A process that dies too often is given up with the end of its log, and the others are stopped."""
    broken = process(tmp_path, "broken", script="echo 'cannot open the vault' >&2; exit 3")
    policy = RestartPolicy(deaths=3, first_delay_seconds=0.02)
    with pytest.raises(ProcessFailedError) as caught:
        async with (
            asyncio.timeout(20),
            Supervisor([process(tmp_path, "other"), broken], tmp_path, policy=policy) as started,
        ):
            await started.start()
    assert "died 3 times, most recently with exit status 3" in str(caught.value)
    assert str(tmp_path / "logs" / "broken.log") in str(caught.value)
    assert "cannot open the vault" in str(caught.value)
    assert {s.name: s.phase for s in started.states()} == {"other": Phase.STOPPED, "broken": Phase.GAVE_UP}


async def test_giving_up_ends_a_block_that_waits_elsewhere(tmp_path: Path) -> None:
    """Giving up a process ends the block wherever it waits."""
    dies = process(tmp_path, "dies", script="touch {ready}; sleep 0.3; exit 1")
    supervisor = Supervisor([dies], tmp_path, policy=RestartPolicy(deaths=2, first_delay_seconds=0))
    with pytest.raises(ProcessFailedError, match="dies"):
        await asyncio.wait_for(supervisor.run(), timeout=20)


async def test_a_first_start_that_never_becomes_ready_fails_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A first start that never becomes ready fails with the end of its log."""
    mute = process(tmp_path, "mute", script="echo waiting for a friend; sleep 60", ready_within_seconds=0.5)
    with pytest.raises(ProcessFailedError, match=r"mute: not ready within 0.5 s[\s\S]*waiting for a friend"):
        async with Supervisor([mute], tmp_path) as supervisor:
            await supervisor.start()
    assert read_state(tmp_path).processes[0].phase is Phase.GAVE_UP  # type: ignore[union-attr]


async def test_slow_deaths_outside_the_window_are_given_up_too(tmp_path: Path) -> None:
    """Deaths in a row without readiness are given up, even when each outlasts the window."""
    flag = tmp_path / "once"
    script = f"test -e {flag} && sleep 60; touch {flag} {{ready}}; sleep 0.3; rm {{ready}}; exit 1"
    slow = process(tmp_path, "slow", script=script, ready_within_seconds=0.4)
    policy = RestartPolicy(deaths=3, window_seconds=0.3, first_delay_seconds=0.0)
    with pytest.raises(ProcessFailedError, match="died 3 times, most recently with not ready within"):
        await asyncio.wait_for(Supervisor([slow], tmp_path, policy=policy).run(), timeout=20)


async def test_a_failed_set_up_is_final(tmp_path: Path) -> None:
    """A failed set-up ends the start with its own message and is not retried."""

    def refuse() -> None:
        raise ServicePreparationError("there is no PostgreSQL here")

    calls: list[int] = []
    spec = process(tmp_path, "database", prepare=refuse)
    with pytest.raises(ServicePreparationError, match="there is no PostgreSQL here"):
        async with Supervisor(
            [spec], tmp_path, on_change=lambda states: calls.append(states[0].restarts)
        ) as supervisor:
            await supervisor.start()
    assert max(calls) == 0


async def test_processes_stop_in_reverse_order_and_are_asked_first(tmp_path: Path) -> None:
    """Processes stop in reverse order and are asked to stop first."""
    stopped: list[str] = []

    def watch(states: tuple[ProcessState, ...]) -> None:
        stopped.extend(s.name for s in states if s.phase is Phase.STOPPED and s.name not in stopped and s.restarts == 0)

    specs = [
        process(tmp_path, "a"),
        process(tmp_path, "b", depends_on=("a",)),
        process(tmp_path, "c", depends_on=("b",)),
    ]
    async with Supervisor(specs, tmp_path, on_change=watch) as supervisor:
        await supervisor.start()
        stopped.clear()
    assert stopped == ["c", "b", "a"]
    assert "asked to stop" in (tmp_path / "logs" / "a.log").read_text()


async def test_a_process_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    """A process that ignores its stop signal is killed with its children."""
    script = f"sleep 300 & echo $! > {tmp_path}/child; {STUBBORN}"
    async with Supervisor([process(tmp_path, "deaf", script=script, grace_seconds=0.3)], tmp_path) as supervisor:
        await supervisor.start()
        pids = [supervisor.state("deaf").pid, int((tmp_path / "child").read_text())]
    await until(lambda: not any(birth_of(pid) for pid in pids if pid), "the end of the process and its child")


async def test_what_a_dead_process_leaves_in_its_group_dies_too(tmp_path: Path) -> None:
    """The children of a dead process are killed with its group."""
    script = "sleep 300 & echo $! > {folder}/child; " + LIVES
    async with Supervisor([process(tmp_path, "trainer", script=script)], tmp_path, policy=QUICK) as supervisor:
        await supervisor.start()
        orphan = int((tmp_path / "child").read_text())
        os.kill(supervisor.state("trainer").pid or 0, signal.SIGKILL)
        await until(lambda: birth_of(orphan) is None, "the end of the orphan")


async def test_states_can_be_read_by_others_and_logs_are_appended(tmp_path: Path) -> None:
    """Other processes can read the states at any time; logs are appended across restarts."""
    for _ in range(2):
        async with Supervisor([process(tmp_path, "worker")], tmp_path) as supervisor:
            await supervisor.start()
            written = read_state(tmp_path)
            assert written is not None
            assert written.supervisor_pid == os.getpid()
            assert written.processes == supervisor.states()
            assert running_supervisor(tmp_path) == os.getpid()
    assert (tmp_path / "logs" / "worker.log").read_text().count("started") == 2
    assert running_supervisor(tmp_path) is None


async def test_one_folder_has_one_supervisor(tmp_path: Path) -> None:
    """A second supervisor on one folder is refused."""
    async with Supervisor([process(tmp_path, "worker")], tmp_path) as supervisor:
        await supervisor.start()
        pid = supervisor.state("worker").pid
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
            async with Supervisor([process(tmp_path, "worker")], tmp_path):
                pytest.fail("a second supervisor took the folder")
        assert supervisor.state("worker").pid == pid
        assert supervisor.state("worker").phase is Phase.READY


SCRIPT = """
import asyncio, pathlib, sys
sys.path.insert(0, "tests/unit/stack")
from test_supervisor import LIVES, STUBBORN, process
from stack.supervisor import Supervisor
folder = pathlib.Path(sys.argv[1])
script = STUBBORN if sys.argv[2:] else LIVES
supervisor = Supervisor([process(folder, "worker", script=script, grace_seconds=60.0)], folder)
asyncio.run(supervisor.run())
print("ended by", supervisor.stopped_by.name)
"""


def launch(*command: str) -> subprocess.Popen[str]:
    """Start a process in its own group."""
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)


async def started_elsewhere(folder: Path, *kind: str) -> subprocess.Popen[str]:
    """Start a supervisor in its own process with a ready worker; any ``kind`` makes the worker ignore SIGTERM."""
    other = launch(sys.executable, "-c", SCRIPT, str(folder), *kind)
    await until(lambda: phase_written(folder) is Phase.READY, "the other supervisor")
    return other


def phase_written(folder: Path) -> Phase | None:
    """Return the phase of the only process, as another command reads it."""
    state = read_state(folder)
    return state.processes[0].phase if state else None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_and_sigterm_stop_everything_quietly(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM stop all processes without an error."""
    other = await started_elsewhere(tmp_path)
    other.send_signal(number)
    output, _ = await asyncio.to_thread(other.communicate, timeout=10)
    assert other.returncode == 0
    assert f"ended by {number.name}" in output
    assert phase_written(tmp_path) is Phase.STOPPED


async def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    """A second signal kills all processes without waiting for their grace time."""
    other = await started_elsewhere(tmp_path, "stubborn")
    other.send_signal(signal.SIGTERM)
    await until(lambda: signalled(other.pid), "the first signal to be handled")
    other.send_signal(signal.SIGINT)
    output, _ = await asyncio.to_thread(other.communicate, timeout=10)
    assert other.returncode == 0
    assert "ended by SIGTERM" in output


def signalled(pid: int) -> bool:
    """Whether the process has handled all its signals."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return all(int(line.split()[1], 16) == 0 for line in lines if line.startswith(("SigPnd", "ShdPnd")))


async def test_children_die_with_a_killed_supervisor_and_the_folder_is_free(tmp_path: Path) -> None:
    """When a supervisor is killed, its processes die and its folder becomes free."""
    other = await started_elsewhere(tmp_path)
    worker = read_state(tmp_path).processes[0].pid  # type: ignore[union-attr]
    assert worker is not None
    assert running_supervisor(tmp_path) == other.pid
    other.kill()
    await asyncio.to_thread(other.communicate, timeout=10)
    await until(lambda: birth_of(worker) is None, "the worker's death")
    assert running_supervisor(tmp_path) is None
    (tmp_path / "worker.ready").unlink()
    async with Supervisor([process(tmp_path, "worker")], tmp_path) as supervisor:
        await supervisor.start()


async def test_leftovers_are_ended_but_not_a_stranger_with_their_number(tmp_path: Path) -> None:
    """Leftovers of an earlier supervisor are killed; an unrelated process with the same id is not."""
    async with Supervisor([process(tmp_path, "worker")], tmp_path) as supervisor:
        await supervisor.start()
        state = (tmp_path / "state.json").read_text()
        pid, born_at = supervisor.state("worker").pid, supervisor.state("worker").born_at
    sleeper = launch("sleep", "300")
    try:
        stranger = state.replace(f'"pid":{pid}', f'"pid":{sleeper.pid}')
        (tmp_path / "state.json").write_text(stranger.replace(str(born_at), str((born_at or 0) - 100)))
        async with Supervisor([process(tmp_path, "worker")], tmp_path):
            assert sleeper.poll() is None
        left = stranger.replace(str(born_at), str(psutil.Process(sleeper.pid).create_time()))
        (tmp_path / "state.json").write_text(left)
        async with Supervisor([process(tmp_path, "worker")], tmp_path):
            assert sleeper.wait(timeout=5) == -signal.SIGKILL
    finally:
        sleeper.kill()
        sleeper.communicate()


async def test_an_unknown_program_is_named(tmp_path: Path) -> None:
    """A program that does not exist is named in the error."""
    spec = process(tmp_path, "lost", command=("/nowhere/program",))
    with pytest.raises(ProcessFailedError, match=r"could not be started: .*/nowhere/program"):
        async with Supervisor([spec], tmp_path, policy=RestartPolicy(deaths=2, first_delay_seconds=0)) as supervisor:
            await supervisor.start()


async def test_starting_a_stranger_is_refused(tmp_path: Path) -> None:
    """Starting an unknown name is refused; the error lists the known ones."""
    async with Supervisor([process(tmp_path, "worker")], tmp_path) as supervisor:
        with pytest.raises(SettingsError, match="no process wroker; there are worker"):
            await supervisor.start("wroker")


def test_waves_put_every_process_after_what_it_needs(tmp_path: Path) -> None:
    """Each process is in a later wave than its dependencies."""
    specs = [
        process(tmp_path, "replica", depends_on=("broker", "database")),
        process(tmp_path, "worker", depends_on=("broker",)),
        process(tmp_path, "broker"),
        process(tmp_path, "database"),
    ]
    assert start_waves(specs) == [("broker", "database"), ("replica", "worker")]


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"a": ("b",), "b": ("a",)}, "cycle"),
        ({"a": ("ghost",)}, "depend on ghost"),
    ],
)
def test_impossible_orders_are_refused(tmp_path: Path, needs: dict[str, tuple[str, ...]], message: str) -> None:
    """Cycles and unknown dependencies are refused."""
    specs = [process(tmp_path, name, depends_on=needed) for name, needed in needs.items()]
    with pytest.raises(SettingsError, match=message):
        start_waves(specs)


def test_two_processes_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two processes with the same name are refused."""
    with pytest.raises(SettingsError, match="same name"):
        start_waves([process(tmp_path, "a"), process(tmp_path, "a")])


def test_the_pause_doubles_up_to_its_limit() -> None:
    """The pause between restarts doubles up to its limit."""
    policy = RestartPolicy(first_delay_seconds=0.5, longest_delay_seconds=3.0)
    assert [policy.delay_seconds(deaths) for deaths in (1, 2, 3, 4, 9)] == [0.5, 1.0, 2.0, 3.0, 3.0]
