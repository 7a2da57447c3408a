"""The HTTP server's protocol, bounded: what a request says before its body is anybody's, and is kept in memory."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024
VERSIONS = ("1.0", "1.1")


class BoundedProtocol(HttpToolsProtocol):
    """Answers 400 to a target and headers of more than that, and to as much of anything else that is no body.

    So neither headers nor trailers nor the extensions of chunks go on for ever. A body is bounded by who reads it.
    """

    _unread = 0  # bytes since something came of them

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX:
            raise ValueError("the head of the request is too long")
        if self.parser.get_http_version() not in VERSIONS:
            raise ValueError("a version of HTTP that is not spoken here")
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()
