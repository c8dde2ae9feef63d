# SPDX-License-Identifier: Apache-2.0
"""A real S3 server on loopback, with the settings that reach it."""

import logging
import re
import urllib.request

KEY, SECRET = "AKIATESTTESTTESTTEST", "a-secret-that-nobody-may-see"


class ObjectStorage:
    """moto's server; remembers requests as ``GET /bucket/key``, and can go down and come back."""

    def __init__(self):
        from moto.server import ThreadedMotoServer

        self._make = ThreadedMotoServer
        self._port = 0
        self._log = logging.getLogger("werkzeug")
        self._handler = logging.Handler()
        self._handler.emit = self._remember
        self.requests = []

    def _remember(self, record):
        request = re.search(r"(GET|PUT|POST|HEAD|DELETE) .*(?= HTTP/)", record.getMessage())
        self.requests.append(request[0])

    def start(self):
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._log.addHandler(self._handler)
        self.server = self._make("127.0.0.1", self._port, verbose=False)
        self.server.start()
        self._port = self.server.get_host_and_port()[1]

    def stop(self):
        self.server.stop()
        self._log.removeHandler(self._handler)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self):
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "no_proxy": "127.0.0.1",
        }

    def downloads(self, key):
        """How often an object was asked for."""
        return sum(request.partition("?")[0] == f"GET /bucket/{key}" for request in self.requests)

    def refuse_everybody(self, wanted=True):
        """From now on only known keys are let in, and none is known."""
        self._tell("reset-auth", b"0" if wanted else b"1000000000")

    def empty(self):
        self.refuse_everybody(False)
        self._tell("reset", b"")
        self.put("")  # the bucket itself
        self.requests.clear()

    def put(self, key, content=b""):
        """Store an object of ``bucket``; bytes, or a local file's."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        self._client().create_bucket(Bucket="bucket")
        if key:
            self._client().put_object(Bucket="bucket", Key=key, Body=data)

    def put_folder(self, key, folder):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path)

    def keys(self, prefix=""):
        found = self._client().list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def get(self, key):
        return self._client().get_object(Bucket="bucket", Key=key)["Body"].read()

    def _client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def _tell(self, what, data):
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/{what}", data=data, headers=headers, method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=300).close()
