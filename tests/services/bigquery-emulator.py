"""Runs `bqemulator` as the tests need it: without the network, and with answers of the real service where it has its own.

* Extensions of DuckDB that it would fetch at each start are left out: GEOGRAPHY's functions (`ST_…`) and Avro are not there.
* A query that fails is an HTTP error with its reason, not a success with errors in it.
* `defaultDataset` of `jobs.query` holds.
* Queries have a price: 8 bytes for each value that they give, 10 MB at least, and `maximumBytesBilled` is followed. A dry run tells the
  bytes, and no rows.
* Its port is taken at once: it takes seconds to start, in which somebody else could. That of the Storage API is any free one; the file `storage` in its folder has it.
* A query's result is a table to the Storage API, too: the one that its job names as destination. Blocks hold 10,000 rows, and reading begins at an offset.
"""

import json
import os
import socket
import sys
from types import SimpleNamespace

port = int(sys.argv[sys.argv.index("--rest-port") + 1])
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
taken.bind(("127.0.0.1", port))

import uvicorn
from bqemulator import server
from bqemulator.grpc_api import read_servicer
from bqemulator.jobs.executor import JOB_RESULTS
from bqemulator.sql.rewriter.default_dataset import qualify_unqualified_tables
from bqemulator.storage.engine import DuckDBEngine
from google.cloud.bigquery_storage_v1 import types

LEAST = 10_000_000
STATUS = {"notFound": 404, "accessDenied": 403, "backendError": 503, "internalError": 500}

DuckDBEngine._load_spatial = lambda self: None
DuckDBEngine._load_format_extensions = lambda self: None


def refusal(reason, message):
    """A failed request as the service writes it."""
    status = STATUS.get(reason, 400)
    error = {"reason": reason, "message": message, "domain": "global"}
    return status, {"error": {"code": status, "message": message, "errors": [error]}}


def billed(answer):
    """The bytes that a query reads, and those that are billed."""
    columns = len(answer.get("schema", {}).get("fields", []))
    read = 8 * columns * int(answer.get("totalRows", 0))
    return read, max(read, LEAST) if read else 0


class Priced:
    """The emulator's application, before which queries are priced."""

    def __init__(self, inner):
        self.inner = inner
        self.state = inner.state

    async def __call__(self, scope, receive, send):
        is_query = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/queries")
        if not is_query:
            return await self.inner(scope, receive, send)
        asked, more = b"", True
        while more:
            message = await receive()
            asked += message.get("body", b"")
            more = message.get("more_body", False)
        status, answer = await self.query(scope, json.loads(asked))
        body = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def query(self, scope, asked):
        dry = asked.pop("dryRun", False)
        most = int(asked.get("maximumBytesBilled") or 0)
        default = asked.get("defaultDataset")
        is_reading = asked["query"].lstrip(" (\n").upper().startswith(("SELECT", "WITH"))
        if default and is_reading:
            project, dataset = default["projectId"], default["datasetId"]
            asked["query"] = qualify_unqualified_tables(asked["query"], default_project=project, default_dataset=dataset)
        status, answer = await self.ask(scope, asked)
        if status != 200:
            return status, answer
        if answer.get("errors") and not answer["schema"]["fields"]:
            return refusal(answer["errors"][0].get("reason") or "invalidQuery", answer["errors"][0].get("message", ""))
        if not is_reading:
            return status, answer
        read, bill = billed(answer)
        answer["totalBytesProcessed"] = str(read)
        if dry:
            answer = {name: answer[name] for name in ("kind", "schema", "jobComplete", "totalBytesProcessed")}
            return status, answer | {"totalRows": "0", "cacheHit": False}
        if most and bill > most:
            message = f"Query exceeded limit for bytes billed: {most}. {bill} or higher required."
            return refusal("bytesBilledLimitExceeded", message)
        return status, answer | {"totalBytesBilled": str(bill), "totalSlotMs": str(int(answer["totalRows"]) + 1)}

    async def ask(self, scope, asked):
        body = json.dumps(asked).encode()
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = scope | {"headers": [*headers, (b"content-length", str(len(body)).encode())]}
        messages = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            messages.append(message)

        try:
            await self.inner(scope, receive, send)
        except Exception as error:  # what the emulator does not survive, the service calls a fault of its own
            return refusal("internalError", type(error).__name__)
        return messages[0]["status"], json.loads(b"".join(m.get("body", b"") for m in messages[1:]) or "{}")


class Part:
    """Rows of a stream, from an offset on, in blocks as the service makes them."""

    def __init__(self, table, offset):
        self.schema = table.schema
        self.table = table.slice(offset)

    def to_batches(self, max_chunksize):
        return self.table.to_batches(max_chunksize=10_000)


def named(stream, offset=None):
    """An offset within a stream's name, as the handler passes on nothing else; and back."""
    name, _, found = stream.partition("@")
    return (name, int(found or 0)) if offset is None else f"{stream}@{offset}"


read_rows = read_servicer.BigQueryReadHandler._handle_read_rows
stream_data = read_servicer.get_stream_data


def rows_from(self, request, context):
    asked = types.ReadRowsRequest.deserialize(request)
    asked.read_stream = named(asked.read_stream, asked.offset)
    return read_rows(self, types.ReadRowsRequest.serialize(asked), context)


def part(session, stream):
    name, offset = named(stream)
    found = stream_data(session, name)
    return found and Part(found, offset)


create_session = read_servicer.BigQueryReadHandler._handle_create_read_session


def session_of(self, request, context):
    table = types.CreateReadSessionRequest.deserialize(request).read_session.table
    rows = result(table.rsplit("/", 1)[-1])
    if rows is None:
        return create_session(self, request, context)
    # Its query ran before: there is nothing to fetch.
    done = SimpleNamespace(fetch_arrow=lambda sql: rows)
    context_of = SimpleNamespace(engine=done, catalog=self._ctx.catalog, metrics=self._ctx.metrics)
    return create_session(read_servicer.BigQueryReadHandler(context_of), request, context)


def result(name):
    """What a query gave, by the name of the table that it is."""
    return next((rows for job, rows in list(JOB_RESULTS.items()) if "anon" + job.replace("-", "") == name), None)


read_servicer.get_stream_data = part
read_servicer.BigQueryReadHandler._handle_read_rows = rows_from
read_servicer.BigQueryReadHandler._handle_create_read_session = session_of

build_grpc = server.build_grpc_server


def build_and_tell(context):
    built, taken = build_grpc(context)
    with open(os.path.join(os.environ["HOME"], "storage"), "w") as file:
        file.write(str(taken))
    return built, taken


server.build_grpc_server = build_and_tell

serve = uvicorn.Server.serve
uvicorn.Server.serve = lambda self, sockets=None: serve(self, sockets=sockets or [taken])

make = server.create_app
server.create_app = lambda *all, **named: Priced(make(*all, **named))

if __name__ == "__main__":
    from bqemulator.cli import main

    main()
