"""The web page, without a browser: its files, their headers, and that they fit one another."""

import pathlib
import re
import unittest

from vitserve import MODEL, Server, ServerCase

WEB = pathlib.Path(__file__).resolve().parents[2] / "server" / "web"
PAGES = {"/": ("index.html", "text/html; charset=utf-8"),
         "/style.css": ("style.css", "text/css; charset=utf-8"),
         "/app.js": ("app.js", "text/javascript; charset=utf-8"),
         "/favicon.svg": ("favicon.svg", "image/svg+xml")}
POLICY = {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
          "img-src": "'self' blob: data:", "connect-src": "'self'", "base-uri": "'none'",
          "form-action": "'none'", "frame-ancestors": "'none'"}
# The name of a format, which nobody fetches.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def text(name):
    return (WEB / name).read_text(encoding="utf-8")


class Served(ServerCase):
    options = ("--max-batch", "1")

    def test_the_files_as_they_are(self):
        self.assertEqual({path.name for path in WEB.iterdir()}, {name for name, _ in PAGES.values()})
        for path, (name, kind) in PAGES.items():
            with self.subTest(path):
                answer = self.server.request("GET", path)
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers["content-type"], kind)
                self.assertEqual(answer.body, (WEB / name).read_bytes())

    def test_headers(self):
        for path in PAGES:
            with self.subTest(path):
                headers = self.server.request("GET", path).headers
                policy = headers["content-security-policy"].split("; ")
                self.assertEqual(dict(rule.split(" ", 1) for rule in policy), POLICY)
                self.assertEqual(headers["x-content-type-options"], "nosniff")
                self.assertEqual(headers["referrer-policy"], "no-referrer")
                self.assertEqual(headers["cache-control"], "no-cache")
                self.assertRegex(headers["etag"], r'^"[0-9a-f]{16}"$')

    def test_head(self):
        for path in PAGES:
            with self.subTest(path):
                get, head = (self.server.request(method, path) for method in ("GET", "HEAD"))
                self.assertEqual((head.status, head.body), (200, b""))
                for name in ("content-type", "content-length", "etag", "content-security-policy"):
                    self.assertEqual(head.headers[name], get.headers[name])

    def test_other_methods_and_paths(self):
        answer = self.server.request("POST", "/", b"x")
        self.check_error(answer, 405, "method_not_allowed")
        self.assertEqual(answer.headers["allow"], "GET, HEAD, OPTIONS")
        for path in ("/index.html", "/app.js//", "//app.js", "/../app.js", "/%2e%2e/models.json"):
            self.check_error(self.server.request("GET", path), 404, "not_found")

    def test_while_starting(self):
        """The page shows that the server starts, so it does not wait for the model."""
        with Server("--max-batch", 1, model=("--model", "vit_b_32", *MODEL[2:]),
                    wait=False) as server:
            for path in PAGES:
                self.assertEqual(server.request("GET", path).status, 200)
            self.check_error(server.request("GET", "/readyz"), 503, "starting")


class Files(unittest.TestCase):
    def test_size(self):
        self.assertLess(sum(path.stat().st_size for path in WEB.iterdir()), 30000)

    def test_no_other_origin(self):
        for name, _ in PAGES.values():
            with self.subTest(name):
                content = text(name)
                if name == "favicon.svg":
                    content = content.replace(NAMESPACE, "")
                # "//" begins an address without a scheme, except where it begins a comment.
                comment = r"(?:^|\s)// .*$" if name == "app.js" else r"(?!)"
                content = re.sub(comment, "", content, flags=re.MULTILINE)
                self.assertNotIn("//", content)
                self.assertNotRegex(content, r"@import|url\(")

    def test_nothing_inline(self):
        """The policy would block it."""
        html = text("index.html")
        self.assertNotRegex(html, r"(?i)<style|\sstyle\s*=|\son\w+\s*=|javascript:")
        self.assertEqual(re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL), [""])
        self.assertNotRegex(text("app.js"), r'"style"|cssText|\beval\b|new Function')

    def test_untrusted_text_is_never_markup(self):
        self.assertNotRegex(text("app.js"),
                            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|"
                            r"createContextualFragment|setHTML|srcdoc")

    def test_elements_exist(self):
        html, js = text("index.html"), text("app.js")
        ids = re.findall(r'\sid="([^"]+)"', html)
        self.assertEqual(len(ids), len(set(ids)))
        asked = set(re.findall(r'\$\("([^"]+)"\)', js))
        self.assertGreater(len(asked), 10)
        self.assertLessEqual(asked, set(ids))
        for name in ("for", "aria-labelledby", "aria-describedby"):
            self.assertLessEqual(set(re.findall(rf'\s{name}="([^"]+)"', html)), set(ids))
        # A part of a card goes by the first of its classes.
        card = html[html.index("<template"):html.index("</template>")]
        parts = {names.split()[0] for names in re.findall(r'\sclass="([^"]+)"', card)}
        used = set(re.findall(r"\bpart\.(\w+)", js)) - {"card"}
        for names in re.findall(r"const \{([^}]*)\} = picture\.part;", js):
            used |= {name.split(":")[0].strip(' "') for name in names.split(",")}
        self.assertGreater(len(used), 10)
        self.assertLessEqual(used, parts)

    def test_local_links(self):
        """Relative, for proxies that serve the page under a path of its own."""
        for target in re.findall(r'\s(?:src|href)="([^"]*)"', text("index.html")):
            self.assertIn(target, ("style.css", "app.js", "favicon.svg", "model?format=markdown",
                                   "metrics", "openapi.json"))

    def test_language_and_labels(self):
        html = text("index.html")
        self.assertTrue(html.startswith('<!doctype html>\n<html lang="en">'))
        for image in re.findall(r"<img[^>]*>", html):
            self.assertIn("alt=", image)


if __name__ == "__main__":
    unittest.main()
