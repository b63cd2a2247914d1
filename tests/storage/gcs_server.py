"""Buckets on the loopback address: what gcsfs, tensorstore and google-cloud-storage use of Cloud Storage's JSON API.

The objects lie in the memory of the process that serves them. Faults can be switched on: refusals, and downloads that
are cut off. (gcp-storage-emulator of PyPI knows no ifGenerationMatch, so two owners could claim one run, and serves one
request at a time.)

    python tests/storage/gcs_server.py PORT [BUCKET ...]     prints its address and serves until it is killed
"""

import base64
import hashlib
import json
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Bucket:
    """Objects by name; each is a pair of its content and its resource (metadata)."""

    def __init__(self, name):
        self.name, self.objects = name, {}

    def put(self, name, content, kind="application/octet-stream", match=None):
        """Store an object, if the one there has generation `match` ("0": there is none)."""
        self.check(name, match)
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1000 % 10**6:06d}Z"
        crc = google_crc32c.Checksum(content).digest()
        resource = {
            "kind": "storage#object",
            "id": f"{self.name}/{name}",
            "name": name,
            "bucket": self.name,
            "generation": str(time.time_ns()),
            "metageneration": "1",
            "contentType": kind,
            "size": str(len(content)),
            "crc32c": base64.b64encode(crc).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": now,
            "updated": now,
            "storageClass": "STANDARD",
        }
        self.objects[name] = (content, resource)
        return resource

    def get(self, name):
        if name not in self.objects:
            raise Refusal(404, f"No such object: {self.name}/{name}")
        return self.objects[name]

    def check(self, name, match=None, not_match=None):
        there = self.objects[name][1]["generation"] if name in self.objects else "0"
        if match is not None and match != there:
            raise Refusal(412, "At least one of the pre-conditions you specified did not hold.")
        if not_match is not None and not_match == there:
            raise Refusal(304, "")


class Server:
    """Serves buckets at `address`; a context manager.

    Attributes:
      buckets: by name.
      refuse: ``(method, path) -> HTTP status or None``; what it returns is the answer.
      cut: how many bytes of downloads are sent before the connection breaks, for downloads that would be longer;
        None: all.
      requests: (method, path with query) of each request so far.
    """

    def __init__(self, *names, port=0):
        self.buckets = {name: Bucket(name) for name in names}
        self.refuse, self.cut, self.requests, self.uploads = lambda method, path: None, None, [], {}
        self.lock = threading.RLock()
        self._http = _Http(("127.0.0.1", port), type("Handler", (_Handler,), {"served": self}))
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def names(self, prefix="", bucket="pods"):
        """Of the objects below `prefix`."""
        return sorted(name for name in self.buckets[bucket].objects if name.startswith(prefix))

    def content(self, name, bucket="pods"):
        return self.buckets[bucket].objects[name][0]

    def upload(self, folder, prefix, bucket="pods"):
        """Put the files of a local folder below `prefix`."""
        for file in (path for path in folder.rglob("*") if path.is_file()):
            self.buckets[bucket].put(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def bucket(self, name):
        if name not in self.buckets:
            raise Refusal(404, "The specified bucket does not exist.")
        return self.buckets[name]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Clients that were killed break their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, 1 << 16  # else each answer waits 40 ms for the client's kernel
    served: Server

    def log_message(self, *_):
        """Nothing is printed."""

    def answer(self):
        place = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(place.query, keep_blank_values=True))
        self.body = self._read()
        self.parts = [urllib.parse.unquote(part) for part in place.path.strip("/").split("/")]
        self.served.requests.append((self.command, self.path))
        try:
            code = self.served.refuse(self.command, urllib.parse.unquote(self.path))
            if code:
                raise Refusal(code, "refused by the test")
            with self.served.lock:
                found = self._find()
        except Refusal as refusal:
            text = json.dumps({"error": {"code": refusal.code, "message": str(refusal)}}).encode()
            found = refusal.code, b"" if refusal.code == 304 else text, {"Content-Type": "application/json"}
        if isinstance(found, dict):
            found = 200, json.dumps(found).encode(), {"Content-Type": "application/json"}
        self._send(*found)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def _read(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, code, content, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.served.cut
        if code in (200, 206) and "x-goog-generation" in headers and cut is not None and len(content) > cut:
            self.wfile.write(content[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content)

    def _find(self):
        parts = self.parts
        uploading, downloading = parts[0] == "upload", parts[0] == "download"
        if uploading or downloading:
            parts = parts[1:]
        if parts[:3] != ["storage", "v1", "b"] or len(parts) < 4:
            raise Refusal(501, f"not served here: {self.command} {self.path}")
        bucket, rest = self.served.bucket(parts[3]), parts[4:]
        if not rest:
            return {"kind": "storage#bucket", "id": bucket.name, "name": bucket.name, "location": "US"}
        if rest == ["o"]:
            return self._upload(bucket) if uploading else self._list(bucket)
        name, action = rest[1], rest[2:]
        if action:
            return self._copy(bucket, name, action)
        if self.command == "DELETE":
            bucket.get(name)
            bucket.check(name, self.query.get("ifGenerationMatch"))
            del bucket.objects[name]
            return 204, b"", {}
        content, resource = bucket.get(name)
        bucket.check(name, self.query.get("ifGenerationMatch"), self.query.get("ifGenerationNotMatch"))
        if self.query.get("generation", resource["generation"]) != resource["generation"]:
            raise Refusal(404, f"No such object: {bucket.name}/{name}#{self.query['generation']}")
        return self._content(content, resource) if self.query.get("alt") == "media" else resource

    def _content(self, content, resource):
        headers = {
            "Content-Type": resource["contentType"],
            "x-goog-generation": resource["generation"],
            "x-goog-metageneration": "1",
            "x-goog-hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
            "x-goog-stored-content-length": resource["size"],
        }
        wanted = self.headers.get("Range")
        if not wanted:
            return 200, content, headers
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if not first:
            begin, end = max(len(content) - int(last), 0), len(content)
        else:
            begin, end = int(first), min(int(last) + 1 if last else len(content), len(content))
        if begin >= len(content):
            raise Refusal(416, "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        return 206, content[begin:end], headers

    def _list(self, bucket):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        start, end = self.query.get("startOffset", ""), self.query.get("endOffset", "")
        most, after = int(self.query.get("maxResults", 1000)), self.query.get("pageToken", "")
        items, prefixes, token, last = [], [], None, ""
        for name in sorted(bucket.objects):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            below = name[len(prefix) :]
            folder = prefix + below[: below.index(delimiter) + 1] if delimiter and delimiter in below else ""
            if (folder or name) <= after or folder in prefixes[-1:] and folder:
                continue
            if len(items) + len(prefixes) == most:
                token = last
                break
            last = folder or name
            if folder:
                prefixes.append(folder)
            else:
                items.append(bucket.objects[name][1])
        found = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        return found | ({"nextPageToken": token} if token else {})

    def _upload(self, bucket):
        kind, match = self.query.get("uploadType"), self.query.get("ifGenerationMatch")
        if "upload_id" in self.query:
            return self._continue(bucket)
        if kind == "media":
            return bucket.put(self.query["name"], self.body, self.headers.get("Content-Type"), match)
        if kind == "multipart":
            mark = b"--" + self.headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
            _, first, second = self.body.split(mark)[:3]
            about = json.loads(_part(first))
            return bucket.put(self.query.get("name") or about["name"], _part(second), match=match)
        about = json.loads(self.body or b"{}")
        number = str(len(self.served.uploads))
        name = self.query.get("name") or about["name"]
        bucket.check(name, match)
        self.served.uploads[number] = [name, match, b""]
        place = f"{self.served.address}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&upload_id={number}"
        return 200, b"", {"Location": place}

    def _continue(self, bucket):
        """A further part of a resumable upload: "bytes FIRST-LAST/TOTAL", with * for what is not known."""
        upload = self.served.uploads[self.query["upload_id"]]
        _, _, total = self.headers.get("Content-Range", "bytes */*").partition("/")
        upload[2] += self.body
        if not self.headers.get("Content-Range") or (total != "*" and len(upload[2]) >= int(total)):
            name, match, content = upload
            return bucket.put(name, content, match=match)
        return 308, b"", {"Range": f"bytes=0-{len(upload[2]) - 1}"} if upload[2] else {}

    def _copy(self, bucket, name, action):
        """rewriteTo/b/BUCKET/o/NAME, copyTo/b/BUCKET/o/NAME, moveTo/o/NAME."""
        content, resource = bucket.get(name)
        target = bucket if action[0] == "moveTo" else self.served.bucket(action[2])
        made = target.put(action[-1], content, resource["contentType"], self.query.get("ifGenerationMatch"))
        if action[0] == "moveTo":
            del bucket.objects[name]
        if action[0] == "rewriteTo":
            size = resource["size"]
            return {"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": made}
        return made


def _part(part):
    """Content of a part of a multipart body: what follows its headers, without the line end before the next mark."""
    line = b"\r\n" if part.startswith(b"\r\n") else b"\n"
    return part.split(2 * line, 1)[1].removesuffix(line)


if __name__ == "__main__":
    with Server(*sys.argv[2:], port=int(sys.argv[1])) as server:
        print(server.address, flush=True)
        threading.Event().wait()
