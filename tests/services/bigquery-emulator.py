"""Runs `bqemulator` as the tests need it: without the network, and with answers of the real service where it has its own.

* Extensions of DuckDB that it would fetch at each start are left out: GEOGRAPHY's functions (`ST_…`) and Avro are not there.
* A query that fails is an HTTP error with its reason, not a success with errors in it.
* `defaultDataset` of `jobs.query` holds.
* Queries have a price: 8 bytes for each value that they give, 10 MB at least, and `maximumBytesBilled` is followed. A dry run tells the
  bytes, and no rows.
* Its port is taken at once: it takes seconds to start, in which somebody else could.
"""

import json
import socket
import sys

port = int(sys.argv[sys.argv.index("--rest-port") + 1])
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
taken.bind(("127.0.0.1", port))

import uvicorn
from bqemulator import server
from bqemulator.sql.rewriter.default_dataset import qualify_unqualified_tables
from bqemulator.storage.engine import DuckDBEngine

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


serve = uvicorn.Server.serve
uvicorn.Server.serve = lambda self, sockets=None: serve(self, sockets=sockets or [taken])

make = server.create_app
server.create_app = lambda *all, **named: Priced(make(*all, **named))

if __name__ == "__main__":
    from bqemulator.cli import main

    main()
