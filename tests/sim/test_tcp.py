"""Simulated TCP, by asyncio's streams and protocols."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Bursts, Conditions
from quice.sim.packet import Fate, Packet, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.sim.tcp import Flag, TcpTransport
from quice.sim.world import World
from quice.wire import Address
from tests.sim.sockets import address, refused

PORT = 80
NEAR = Conditions(delay=0.02)
STORM = Conditions(delay=0.02, jitter=0.01, loss=0.1, reordering=0.1, held_back=0.05, duplication=0.1, corruption=0.05)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


class Recorder(asyncio.Protocol):
    """Keeps what it gets, and when."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.seen: list[str] = []
        self.data = bytearray()
        self.ended: asyncio.Future[Exception | None] = loop.create_future()
        self.eof: asyncio.Future[float] = loop.create_future()
        self.stays_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.seen.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.seen.append("eof")
        self.eof.set_result(asyncio.get_running_loop().time())
        return self.stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append("lost")
        self.ended.set_result(exc)

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")


@pytest.fixture
def world(simulation: Simulation) -> World:
    return simulation.world


@pytest.fixture
def near(world: World) -> Host:
    return world.host("near", link=NEAR)


@pytest.fixture
def far(world: World) -> Host:
    return world.host("far", link=NEAR)


async def serve(host: Host, answer: Serve, port: int = PORT) -> asyncio.AbstractServer:
    with host:
        return await asyncio.start_server(answer, "0.0.0.0", port)  # type: ignore[arg-type]


async def connected(near: Host, far: Host) -> tuple[Recorder, Recorder]:
    """The two ends of a connection."""
    accepted: asyncio.Future[Recorder] = asyncio.get_running_loop().create_future()

    def accept() -> Recorder:
        accepted.set_result(Recorder())
        return accepted.result()

    loop = asyncio.get_running_loop()
    with far:
        await loop.create_server(accept, "0.0.0.0", PORT)
    with near:
        _, one = await loop.create_connection(Recorder, "far", PORT)
    two = await accepted
    while not two.seen:
        await asyncio.sleep(0.001)
    return one, two


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(10_000):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "weather", [NEAR, STORM, Conditions(delay=0.05, rate=1e6), Conditions(bursts=Bursts(0.02, 0.2))]
)
async def test_what_is_sent_arrives_once_and_in_order_through_any_weather(world: World, weather: Conditions) -> None:
    near, far = world.host("near", link=weather), world.host("far", link=NEAR)
    await serve(far, echo)
    sent = bytes(range(256)) * 500
    with near:
        reader, writer = await asyncio.open_connection("far", PORT)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()
        await writer.wait_closed()


async def test_connecting_takes_a_round_trip(simulation: Simulation, near: Host, far: Host) -> None:
    await connected(near, far)
    assert simulation.loop.time() == pytest.approx(0.08, abs=0.002)


async def test_a_port_that_nobody_listens_on_refuses_at_once(simulation: Simulation, near: Host, far: Host) -> None:
    with near, pytest.raises(ConnectionRefusedError) as refused:
        await asyncio.open_connection("far", PORT)
    assert refused.value.errno == errno.ECONNREFUSED
    assert simulation.loop.time() == pytest.approx(0.08, abs=0.002)


async def test_a_port_is_silent_behind_a_nat_and_connecting_times_out(simulation: Simulation, near: Host) -> None:
    simulation.world.site("home", nat=Nat.PORT_RESTRICTED).host("far")
    (external,) = simulation.world.sites["home"].external
    with near, pytest.raises(TimeoutError):
        await asyncio.open_connection(external, PORT)
    assert 60 < simulation.loop.time() < 75


async def test_connecting_without_a_route_fails_at_once(simulation: Simulation, near: Host) -> None:
    near.interfaces["eth0"].link.cut()
    with near, pytest.raises(OSError) as error:  # noqa: PT011 - its number is looked at
        await asyncio.open_connection("192.0.2.1", PORT)
    assert error.value.errno == errno.ENETUNREACH
    assert simulation.loop.time() == 0


async def test_who_loses_the_route_while_connecting_is_told_at_the_next_try(simulation: Simulation, near: Host) -> None:
    failures: list[object] = []
    simulation.loop.set_exception_handler(lambda _, context: failures.append(context))
    silent = simulation.world.site(nat=Nat.PORT_RESTRICTED).external[0]
    simulation.world.at(0.1, near.interfaces["eth0"].link.cut)
    with near, refused(errno.EINVAL):
        await asyncio.open_connection(silent, 7)
    assert simulation.loop.time() < 1
    assert failures == []


async def test_a_connection_outlives_a_cut_that_its_patience_bears(world: World, near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    link = far.interfaces["eth0"].link
    await asyncio.sleep(300)
    # After a long silence the peer has not been heard of for longer than patience lasts; that is no fault of it.
    link.cut()
    one.transport.write(b"hello")
    await asyncio.sleep(20)
    assert not two.data
    link.mend()
    await asyncio.sleep(10)
    assert two.data == b"hello"
    assert not one.ended.done()


async def test_after_a_cut_a_stream_catches_up_with_what_is_written(world: World, near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    link = far.interfaces["eth0"].link
    world.at(1.0, link.cut)
    world.at(11.0, link.mend)
    for _ in range(1500):
        one.transport.write(bytes(50))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(two.data) == 1500 * 50


async def test_a_connection_is_given_up_after_a_cut_longer_than_its_patience(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    far.interfaces["eth0"].link.cut()
    one.transport.write(b"hello")
    assert isinstance(await one.ended, TimeoutError)
    # Whoever has nothing to send does not notice, until it sends to a host that knows nothing of it any more.
    assert not two.ended.done()
    far.interfaces["eth0"].link.mend()
    two.transport.write(b"are you there?")
    assert isinstance(await two.ended, ConnectionResetError)


async def test_half_close_lets_the_other_direction_go_on(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    two.stays_open = True
    one.transport.write(b"question")
    one.transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        one.transport.write(b"more")
    await two.eof
    assert two.data == b"question"
    two.transport.write(b"answer")
    await asyncio.sleep(100)
    two.transport.write(b", later")
    two.transport.close()
    assert await one.ended is None
    assert one.data == b"answer, later"
    assert await two.ended is None
    assert (one.seen, two.seen) == (["made", "eof", "lost"], ["made", "eof", "lost"])


async def test_a_writer_is_paused_while_the_reader_does_not_read(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    two.transport.pause_reading()
    sent = bytes(1_000_000)
    one.transport.write(sent)
    assert one.seen == ["made", "pause"]
    await asyncio.sleep(200)
    assert not two.data
    assert 500_000 < one.transport.get_write_buffer_size() < 1_000_000
    two.transport.resume_reading()
    await asyncio.sleep(2)
    assert one.seen == ["made", "pause", "resume"]
    assert len(two.data) == len(sent)


async def test_a_reader_that_stops_and_goes_on_in_a_storm_gets_everything(world: World) -> None:
    near, far = world.host("near", link=STORM), world.host("far", link=NEAR)
    one, two = await connected(near, far)
    sent = bytes(range(250)) * 8000
    one.transport.write(sent)
    while len(two.data) < len(sent):
        two.transport.pause_reading()
        await asyncio.sleep(1)
        two.transport.resume_reading()
        await asyncio.sleep(0.1)
    assert two.data == sent


async def test_closing_sends_what_is_written_and_does_not_wait_for_the_peer(
    simulation: Simulation, near: Host, far: Host
) -> None:
    one, two = await connected(near, far)
    started = simulation.loop.time()
    one.transport.write(bytes(100_000))
    one.transport.close()
    assert await one.ended is None
    assert simulation.loop.time() == started
    assert await two.ended is None
    assert len(two.data) == 100_000


async def test_closing_ends_when_a_reader_that_lags_has_taken_what_fits_no_window(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    two.transport.pause_reading()
    one.transport.write(bytes(1_000_000))
    one.transport.close()
    await asyncio.sleep(100)
    assert not one.ended.done()
    two.transport.resume_reading()
    assert await one.ended is None
    assert await two.ended is None
    assert len(two.data) == 1_000_000


async def test_the_last_acknowledgement_may_be_lost(world: World, near: Host, far: Host) -> None:
    resets: list[Passage] = []
    world.watch(lambda passage: resets.append(passage) if passage.packet.data[0] & Flag.RST else None)
    one, two = await connected(near, far)
    one.transport.close()
    await two.eof
    # The end of the other direction is on its way, and its acknowledgement will be lost.
    near.interfaces["eth0"].link.outward.up = False
    await asyncio.sleep(0.1)
    near.interfaces["eth0"].link.outward.up = True
    assert (await one.ended, await two.ended) == (None, None)
    await asyncio.sleep(2)
    assert not far.machine.tcp._connections
    assert not resets


async def test_both_sides_close_at_once(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    one.transport.write(b"1")
    two.transport.write(b"2")
    await asyncio.sleep(1)
    one.transport.close()
    two.transport.close()
    assert (await one.ended, await two.ended) == (None, None)
    assert (bytes(one.data), bytes(two.data)) == (b"2", b"1")
    assert (one.seen, two.seen) == (["made", "lost"], ["made", "lost"])


async def test_the_end_is_not_told_to_who_closes_on_the_last_data(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    two.data_received = lambda data: two.transport.close()  # type: ignore[method-assign]
    two.transport.pause_reading()
    one.transport.write(b"goodbye")
    one.transport.close()
    await asyncio.sleep(1)
    two.transport.resume_reading()
    assert await two.ended is None
    assert two.seen == ["made", "lost"]


async def test_who_has_closed_is_told_nothing_more(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    two.stays_open = True
    two.transport.write(b"too late")
    one.transport.close()
    await asyncio.sleep(10)
    assert one.seen == ["made", "lost"]
    assert not one.data
    # RFC 9293 §3.10.7.1: and whoever goes on sending to it learns that nobody reads.
    assert isinstance(await two.ended, ConnectionResetError)


async def test_aborting_resets_the_other_side(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    one.transport.write(bytes(1_000_000))
    one.transport.abort()
    assert await one.ended is None
    assert isinstance(await two.ended, ConnectionResetError)


async def test_a_connection_that_is_reset_before_its_protocol_begins_is_lost_to_it(simulation: Simulation) -> None:
    """What opens it and what resets it arrive together."""
    here, there = Address("192.0.2.1", 5000), Address("192.0.2.2", PORT)
    sent: list[bytes] = []
    answers: list[bytes] = []
    calling = TcpTransport(simulation.loop, sent.append, lambda: None, here, there)
    called = TcpTransport(simulation.loop, answers.append, lambda: None, there, here)
    recorder = Recorder()
    called.opened.add_done_callback(lambda _: called.attach(recorder))
    calling.begin()
    called.receive(sent.pop())
    called.begin()
    for segment in answers:
        calling.receive(segment)
    await calling.opened
    calling.abort()
    for segment in sent:
        called.receive(segment)
    assert isinstance(await recorder.ended, ConnectionResetError)
    assert recorder.seen == ["made", "lost"]


async def test_connections_go_on_when_their_listener_closes_and_the_port_is_free_again(near: Host, far: Host) -> None:
    server = await serve(far, echo)
    with near:
        reader, writer = await asyncio.open_connection("far", PORT)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("far", PORT)
        again = await serve(far, echo)
        writer.write(b"still here")
        assert await reader.read(100) == b"still here"
        writer.close()
        _, writer = await asyncio.open_connection("far", PORT)
        writer.close()
    assert again.is_serving()


async def test_serving_for_ever_ends_with_the_server(far: Host) -> None:
    server = await serve(far, echo)
    task = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(1)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_listening_port_is_taken(far: Host) -> None:
    await serve(far, echo)
    with pytest.raises(OSError) as taken:  # noqa: PT011 - its number is looked at
        await serve(far, echo)
    assert taken.value.errno == errno.EADDRINUSE


async def test_a_server_is_found_by_name_and_on_loopback(near: Host) -> None:
    with near:
        for name in ("localhost", "near"):
            server = await asyncio.start_server(echo, name, PORT)
            reader, writer = await asyncio.open_connection(name, PORT)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.close()
            server.close()


async def test_each_side_sees_the_addresses_of_the_other(near: Host, far: Host) -> None:
    one, two = await connected(near, far)
    assert one.transport.get_extra_info("sockname")[0] == address(near)
    assert one.transport.get_extra_info("sockname") == two.transport.get_extra_info("peername")
    assert one.transport.get_extra_info("peername") == two.transport.get_extra_info("sockname") == (address(far), PORT)


async def test_a_host_that_gets_another_address_loses_its_connections(near: Host, far: Host) -> None:
    one, _ = await connected(near, far)
    near.change_address("eth0", "203.0.113.200/32")
    one.transport.write(b"hello")
    assert isinstance(await one.ended, TimeoutError)


async def test_a_thousand_connections_at_once(simulation: Simulation, near: Host, far: Host) -> None:
    await serve(far, echo)

    async def talk(number: int) -> None:
        reader, writer = await asyncio.open_connection("far", PORT)
        writer.write(number.to_bytes(4, "big"))
        assert int.from_bytes(await reader.readexactly(4), "big") == number
        writer.close()
        await writer.wait_closed()

    with near:
        await asyncio.gather(*map(talk, range(1000)))
    await asyncio.sleep(70)
    assert not near.machine.tcp._connections
    assert not far.machine.tcp._connections


async def test_an_idle_connection_sends_nothing(world: World, near: Host, far: Host) -> None:
    one, _ = await connected(near, far)
    one.transport.write(b"hello")
    await asyncio.sleep(1)
    seen: list[Passage] = []
    world.watch(seen.append)
    await asyncio.sleep(3000)
    assert seen == []


async def test_a_reset_is_not_answered(world: World, near: Host, far: Host) -> None:
    sent: list[Packet] = []
    world.watch(lambda passage: sent.append(passage.packet) if passage.fate is Fate.SENT else None)
    with near, pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("far", PORT)
    await asyncio.sleep(10)
    assert [packet.protocol for packet in sent] == [Protocol.TCP, Protocol.TCP]
