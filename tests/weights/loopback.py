"""A server of files on the loopback address, as download sites are: ranges, versions, and faults on demand."""

import contextlib
import http.server
import re
import threading


class Site:
    """`files` by path; `requests` as (path, headers) in order.

    `cut`: bytes after which each of the next answers breaks off; `ranges`: whether parts are sent; `redirects` and
    `status` by path.
    """

    def __init__(self, files):
        self.files, self.requests, self.cut, self.ranges = dict(files), [], [], True
        self.redirects, self.status, self.version = {}, {}, '"1"'

    @contextlib.contextmanager
    def served(self):
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, handler):
        path = handler.path
        self.requests.append((path, dict(handler.headers)))
        if path in self.redirects:
            handler.send_response(302)
            for name, value in self.redirects[path].items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        if path not in self.files or self.status.get(path):
            handler.send_error(self.status.get(path, 404))
            return
        content, begin = self.files[path], 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and self.ranges and handler.headers.get("If-Range", self.version) == self.version:
            begin = int(asked[1])
            if begin >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", self.version)
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.end_headers()
        end = begin + self.cut.pop(0) if self.cut else len(content)
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(content[begin:end])
