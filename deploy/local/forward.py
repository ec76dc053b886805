"""The only way in: accepts connections on a socket of the host's loopback, opens each one's other half in the node.

`up` listens on 127.0.0.1 in the host's network namespace and lets the node inherit the socket. This process runs
inside the node's namespaces, where that socket goes on accepting from the host while a new one connects to the node's
own loopback. So no interface, address or rule is ever made on the host, and the process ends with the node.
"""

import asyncio
import socket
import sys

CHUNK_BYTES = 1 << 16


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction until its end, then passes the end on."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def serve(listening: socket.socket, port: int) -> None:
    """Forwards for ever from the listening socket to the node's 127.0.0.1:`port`."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        finally:
            writer.close()
            inner_writer.close()

    server = await asyncio.start_server(accept, sock=listening)
    await server.serve_forever()


if __name__ == "__main__":
    inherited = socket.socket(fileno=int(sys.argv[1]))
    inherited.setblocking(False)
    asyncio.run(serve(inherited, int(sys.argv[2])))
