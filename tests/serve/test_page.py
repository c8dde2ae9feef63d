# SPDX-License-Identifier: Apache-2.0
"""The page for people: alone by its text, and in a browser where there is one."""

import asyncio
import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_the_page_needs_nothing_from_elsewhere_and_is_allowed_nothing_else(server):
    answer = server.ask(path="/")
    text, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "http:" not in text and "https:" not in text and " src=" not in text
    assert not re.search(r"<[^>]+\son\w+=", text), "a script within an element"
    assert "innerHTML" not in text
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    for kind in ("script", "style"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


class Tab:
    """A page in a headless browser, spoken to by the Chrome DevTools Protocol."""

    def __init__(self, socket):
        self.socket, self.number, self.events = socket, 0, []

    async def call(self, method, **params):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            said = await self.socket.receive_json()
            if said.get("id") == self.number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)

    async def value(self, expression):
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, expression):
        while not await self.value(f"!!({expression})"):
            await asyncio.sleep(0.05)

    def complaints(self):
        """What the browser found wrong: errors of scripts, and what the policy forbids."""
        failed = [each for each in self.events if each["method"] == "Runtime.exceptionThrown"]
        logged = [each["params"]["entry"] for each in self.events if each["method"] == "Log.entryAdded"]
        return failed + [entry for entry in logged if entry["level"] in ("error", "warning")]


@pytest.fixture
def browse(tmp_path):
    """Do something with a page in a browser; gives a screenshot as well."""
    import aiohttp

    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=900,700"]
    with (tmp_path / "browser.log").open("wb") as log:
        process = subprocess.Popen([*command, "about:blank"], stdout=log, stderr=log)

    async def visit(url, act):
        file = tmp_path / "profile" / "DevToolsActivePort"
        while not (file.is_file() and len(file.read_text().splitlines()) == 2):
            assert process.poll() is None, (tmp_path / "browser.log").read_text()
            await asyncio.sleep(0.05)
        port = file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                (target,) = [each for each in await response.json() if each["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "DOM"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Page.navigate", url=url)
                await tab.until("document.readyState == 'complete' && location.pathname == '/'")
                given = await act(tab)
                shot = (await tab.call("Page.captureScreenshot", format="png"))["data"]
                return given, base64.b64decode(shot), tab.complaints()

    yield lambda url, act: asyncio.run(asyncio.wait_for(visit(url, act), served.PATIENCE))
    process.kill()
    process.wait()


ANSWERS = """[...document.querySelectorAll('article')].map((article) => ({
  name: article.querySelector('h2').textContent,
  labels: [...article.querySelectorAll('.row span:first-child')].map((each) => each.textContent),
  bars: [...article.querySelectorAll('.track div')].map((each) => each.style.width),
  scores: [...article.querySelectorAll('.row span:last-child')].map((each) => each.textContent),
  says: article.querySelector('p').textContent,
}))"""


def test_in_a_browser_images_get_bars_and_times_and_bad_ones_a_reason(server, browse, tmp_path):
    hostile = "<img src=x onerror=alert(1)>.png"
    for name, content in (
        ("sea.png", toy_bundle.picture(2)),
        (hostile, toy_bundle.picture(0)),
        ("no.png", b"no image"),
    ):
        (tmp_path / name).write_bytes(content)

    async def act(tab):
        await tab.until("document.title == 'ToyColors'")
        root = (await tab.call("DOM.getDocument"))["root"]["nodeId"]
        chooser = (await tab.call("DOM.querySelector", nodeId=root, selector="#files"))["nodeId"]
        files = [str(tmp_path / name) for name in ("sea.png", hostile, "no.png")]
        await tab.call("DOM.setFileInputFiles", files=files, nodeId=chooser)
        await tab.until("document.querySelectorAll('article').length == 3")
        await tab.until("!document.getElementById('answers').textContent.includes('asking')")
        return json.loads(await tab.value(f"JSON.stringify({ANSWERS})")), await tab.value("document.title")

    (answers, title), shot, complaints = browse(server.url + "/", act)
    bad, red, blue = answers  # the last one first
    assert title == "ToyColors"
    assert (blue["name"], red["name"], bad["name"]) == ("sea.png", hostile, "no.png")
    assert blue["labels"][0] == "blue" and red["labels"][0] == "red"
    expected = [f"{100 * score:.1f} %" for score in toy_bundle.expected_scores(2)]
    assert blue["scores"] == expected
    assert float(blue["bars"][0].rstrip("%")) == pytest.approx(100 * toy_bundle.expected_scores(2)[0], abs=0.01)
    assert re.fullmatch(r"\d+ ms, of which [\d.]+ ms in the server", blue["says"])
    assert bad["says"].startswith("image 0: not an image")
    # Only the answer 422 itself is told of as an error of the network; nothing was blocked and no script failed.
    assert [each.get("source") for each in complaints] == ["network"], complaints
    assert shot.startswith(b"\x89PNG")


def test_an_image_is_dropped_and_a_token_is_asked_for(start, model, browse):
    from ppcls.serve.token import Token

    secret = "correct-horse-battery-staple"
    server = start(model=model, token=Token(secret))
    image = base64.b64encode(toy_bundle.picture(1)).decode()
    drop = f"""(async () => {{
      const data = new DataTransfer(), file = Uint8Array.from(atob('{image}'), (each) => each.charCodeAt(0));
      data.items.add(new File([file], 'dropped.png'));
      document.getElementById('drop').dispatchEvent(new DragEvent('drop', {{dataTransfer: data, cancelable: true}}));
    }})()"""

    async def act(tab):
        await tab.until("!document.getElementById('token-line').hidden")
        await tab.value(drop)
        await tab.until("document.querySelector('.error')")
        refused = await tab.value("document.querySelector('.error').textContent")
        await tab.value(f"token.value = '{secret}'; token.dispatchEvent(new Event('change')); 0")
        await tab.until("document.title == 'ToyColors'")
        await tab.value(drop)
        await tab.until("document.querySelector('.row')")
        return refused, json.loads(await tab.value(f"JSON.stringify({ANSWERS})"))

    (refused, answers), _, _ = browse(server.url + "/", act)
    assert "asks for a token" in refused
    assert (answers[0]["name"], answers[0]["labels"][0]) == ("dropped.png", "green")
