"""gRPC calls with a real server and clients of other projects."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from app.api.access.keys import Key
from app.api.open_inference import grpc_calls, grpc_server
from tests.app.api.open_inference.inputs import EXPECTED, IMAGES, MODEL, files, pixels
from tests.app.conftest import Serve
from tests.app.network import encoded, network, publish, random_images, repository_at
from tests.app.world import value
from tests.process import answers, free_port, service, until
from training.contract.repository import ModelRepository

INFER = "/inference.GRPCInferenceService/ModelInfer"
CHECK = "/grpc.health.v1.Health/Check"
COUNT = 'resnext_requests_total{method="POST",route="%s",status="%d",version="%s"}'
DROPPED = 'resnext_requests_dropped_total{reason="%s"}'
triton = tritonclient.grpc.aio


def request() -> Any:  # Any: protobuf's classes have no types
    asked = service_pb2.ModelInferRequest(model_name=MODEL)
    asked.inputs.add(name="image", datatype="UINT8", shape=IMAGES.shape)
    asked.raw_input_contents.append(IMAGES.tobytes())
    return asked


def at(port: int) -> Any:  # Any: grpcio has no types
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}")


@pytest.mark.anyio
async def test_a_call_is_counted_and_logged_as_a_request_is(
    serve: Serve, repository: ModelRepository, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port, log="json") as (http, _), triton.InferenceServerClient(f"127.0.0.1:{port}") as rpc:
        images = [files(triton, encoded(IMAGES[0]), encoded(IMAGES[1]))]
        await rpc.infer(MODEL, images, headers={"x-request-id": "good"})
        with pytest.raises(InferenceServerException):
            await rpc.infer(MODEL, [files(triton, b"no")], headers={"x-request-id": "bad"})
        text = (await http.get("/metrics")).text
    assert value(text, COUNT % (INFER, 200, "1")) == 1
    assert value(text, COUNT % (INFER, 400, "1")) == 1
    assert value(text, f'resnext_request_seconds_count{{method="POST",route="{INFER}"}}') == 1
    for stage in ("receive", "decode", "queue", "infer"):
        assert value(text, f'resnext_stage_seconds_count{{stage="{stage}"}}') == 1
        assert value(text, f'resnext_stage_seconds_sum{{stage="{stage}"}}') > 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    good, bad = (next(line for line in lines if line["request_id"] == id) for id in ("good", "bad"))
    assert (good["method"], good["route"], good["status"], good["version"]) == ("POST", INFER, 200, 1)
    assert good["images"] == 2
    assert good["ms"] > good["decode_ms"] > 0
    assert (bad["route"], bad["status"]) == (INFER, 400)


@pytest.mark.anyio
async def test_an_id_comes_back_with_the_answer_and_with_an_error(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port), at(port) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        nothing = service_pb2.ModelInferRequest()
        for asked, code in ((request(), grpc.StatusCode.OK), (nothing, grpc.StatusCode.INVALID_ARGUMENT)):
            for id in ("mine/1", "two words"):
                call = infer(asked, metadata=[("x-request-id", id)])
                assert await call.code() == code
                back = dict(await call.trailing_metadata())["x-request-id"]
                assert (back == id) is (id == "mine/1")
                assert back


@pytest.mark.anyio
async def test_what_is_no_method_of_ours_is_refused_and_counted(serve: Serve) -> None:
    port = free_port()
    async with serve(grpc_port=port) as (http, _), at(port) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [
            channel.unary_unary("/a.Service/Method")(b"x"),
            stub.ModelStreamInfer(iter([request()])),
            stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest()),
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()),
        ]
        for call in calls:
            assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        text = (await http.get("/metrics")).text
    assert value(text, 'resnext_requests_total{method="other",route="other",status="501",version=""}') == 1
    assert value(text, COUNT % ("/inference.GRPCInferenceService/ModelStreamInfer", 501, "")) == 1
    assert "a.Service" not in text


@pytest.mark.anyio
async def test_a_message_that_can_not_be_read_is_the_clients_fault(
    serve: Serve, repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    publish(repository)
    port = free_port()
    whole = request().SerializeToString()
    async with serve(grpc_port=port, max_upload=10_000), at(port) as channel:
        infer = channel.unary_unary(INFER)
        for data, code in (
            (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            (whole[:-1], grpc.StatusCode.INVALID_ARGUMENT),
            (bytes(10_001), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (b"", grpc.StatusCode.INVALID_ARGUMENT),
            (whole, grpc.StatusCode.OK),
        ):
            assert await infer(data).code() == code
    assert not caplog.records


@pytest.mark.anyio
async def test_a_client_that_leaves_counts_as_cancelled(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, model=network(slow=True))
    port = free_port()
    async with serve(grpc_port=port, max_batch=1) as (http, services), at(port) as channel:
        unfinished = channel.stream_unary(INFER)()  # its message never comes
        await unfinished.wait_for_connection()
        many = request()
        del many.raw_input_contents[:]
        many.inputs[0].shape[0] = 60
        many.raw_input_contents.append(np.repeat(IMAGES, 20, axis=0).tobytes())
        running = channel.unary_unary(INFER)(many.SerializeToString())
        while services.inference.admission.depth < 60:  # noqa: ASYNC110  nothing sets an Event
            await asyncio.sleep(0)
        unfinished.cancel()
        running.cancel()
        async with asyncio.timeout(30):
            while value((await http.get("/metrics")).text, DROPPED % "cancelled") < 2:
                pass
        text = (await http.get("/metrics")).text
    assert value(text, COUNT % (INFER, 499, "1")) == 1
    assert value(text, COUNT % (INFER, 499, "")) == 1


@pytest.mark.anyio
async def test_a_deadline_counts_as_expired_by_every_protocol(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, model=network(slow=True))
    port = free_port()
    body = {"inputs": [{"name": "image", "shape": list(IMAGES.shape), "datatype": "UINT8", "data": IMAGES.tolist()}]}
    async with serve(grpc_port=port, request_timeout=0.001) as (http, _):
        async with triton.InferenceServerClient(f"127.0.0.1:{port}") as rpc:
            with pytest.raises(InferenceServerException, match=r"no answer within 0\.001 s"):
                await rpc.infer(MODEL, [pixels(triton)])
        assert (await http.post(f"/v2/models/{MODEL}/infer", json=body)).status_code == 503
        text = (await http.get("/metrics")).text
    assert value(text, DROPPED % "expired") == 2


@pytest.mark.anyio
async def test_a_key_is_asked_for_before_the_message_is_read(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port, api_keys="secret"), at(port) as channel:
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
            call = channel.stream_unary(INFER)(metadata=metadata, timeout=30)  # its message never comes
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
            assert dict(await call.trailing_metadata())["www-authenticate"] == "Bearer"
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, key in (("authorization", "bearer secret"), ("x-api-key", "secret")):
            assert (await stub.ModelInfer(request(), metadata=[(name, key)])).model_version == "1"
        about = stub.ServerMetadata(service_pb2.ServerMetadataRequest())
        assert await about.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        check = health_pb2_grpc.HealthStub(channel).Check
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.anyio
async def test_a_key_needs_the_scope_of_the_call(serve: Serve, repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    port = free_port()
    (tmp_path / "keys").write_text(Key.of("shop", "predict", "secret").line)
    async with serve(grpc_port=port, api_keys_file=tmp_path / "keys"), at(port) as channel:
        stub, key = service_pb2_grpc.GRPCInferenceServiceStub(channel), [("x-api-key", "secret")]
        assert (await stub.ModelInfer(request(), metadata=key)).model_version == "1"
        load = stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL), metadata=key)
        assert await load.code() == grpc.StatusCode.PERMISSION_DENIED
        assert await load.details() == "this needs a key with the scope admin, the key 'shop' has predict"
        shared = stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest(), metadata=key)
        assert await shared.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.anyio
async def test_a_rate_counts_requests_of_every_protocol(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port, rate_limit="2/day") as (client, _), at(port) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await client.get("/models")).status_code == 200  # from 127.0.0.1, as the calls
        assert (await stub.ModelInfer(request())).model_version == "1"
        call = stub.ModelInfer(request())
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(await call.trailing_metadata())["retry-after"]) in range(86_000, 86_401)
        assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready


@pytest.mark.anyio
async def test_health_follows_readiness(serve: Serve, repository: ModelRepository) -> None:
    port = free_port()
    status = health_pb2.HealthCheckResponse
    async with serve(grpc_port=port) as (_, services), at(port) as channel:

        async def checked(name: str) -> int:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            found: int = answer.status
            return found

        async def expect(ready: int) -> None:
            for name in ("", "readiness", "inference.GRPCInferenceService"):
                assert await checked(name) == ready
            assert await checked("liveness") == status.SERVING

        await expect(status.NOT_SERVING)
        publish(repository)
        await services.serving.refresh()
        await expect(status.SERVING)
        services.drain.begin()
        await expect(status.NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError, match="no service 'other'") as error:
            await checked("other")
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the port has closed in the middle of the handshake
        pass
    return False


def test_both_ports_close_at_once_and_what_is_in_flight_is_answered(tmp_path: Path) -> None:
    publish(repository_at(tmp_path))
    image = encoded(random_images(1)[0])
    rest_of_message = threading.Event()

    def message() -> Iterator[bytes]:
        rest_of_message.wait()
        yield request().SerializeToString()

    grpc_port = free_port()
    with (
        service(tmp_path, provider="cpu", grpc_port=str(grpc_port)) as (process, port),
        grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready", 200))
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
        connection.sendall(head.encode() + image[:10])
        call = channel.stream_unary(INFER).future(message())
        # both have begun before these are answered
        assert channel.unary_unary(CHECK)(b"") == health_pb2.HealthCheckResponse(status=1).SerializeToString()
        assert answers(f"http://127.0.0.1:{port}/health/ready", 200)
        process.terminate()
        until(lambda: refused(port) and refused(grpc_port))
        rest_of_message.set()
        answer = service_pb2.ModelInferResponse.FromString(call.result(60))
        row = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
        np.testing.assert_allclose(row, EXPECTED, atol=1e-5)
        assert process.poll() is None
        connection.sendall(image[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(30) == 0


@pytest.mark.anyio
async def test_messages_take_the_memory_of_uploads(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port) as (_, services), at(port) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        others = services.uploads.lease()
        others.take(services.uploads.capacity)
        call = infer(request())
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert int(dict(await call.trailing_metadata())["retry-after"]) > 0
        others.end()
        assert await infer(request()).code() == grpc.StatusCode.OK
        assert services.uploads.taken == 0


@pytest.mark.anyio
async def test_a_message_has_to_arrive_in_time(
    serve: Serve, repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository)
    monkeypatch.setattr(grpc_calls, "READ_S", 0.05)
    port = free_port()

    over = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await over.wait()
        yield b""

    async with serve(grpc_port=port), at(port) as channel, asyncio.timeout(15):
        assert await channel.stream_unary(INFER)(nothing()).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await channel.unary_unary(INFER)(request().SerializeToString()).code() == grpc.StatusCode.OK
        over.set()  # the client's task ends with it
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_client_cannot_open_any_number_of_connections(
    serve: Serve, repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository)
    monkeypatch.setattr(grpc_server, "CONNECTIONS", 3)
    port = free_port()
    async with serve(grpc_port=port):
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        async with asyncio.timeout(20):
            for reader, _ in opened[3:]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read(100) == b""
        for _, writer in opened:
            writer.close()
