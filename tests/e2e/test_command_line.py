"""The commands and their options: help, precedence, errors, exit codes, what is printed."""

import contextlib
import json
import re
import socket
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree

from vitserve import MODEL, Case, Server, png, run

OPTION = re.compile(r"^  --([a-z0-9-]+)", re.MULTILINE)
COMMANDS = ("serve", "classify", "model", "bench", "pull", "healthcheck")


class CommandLineCase(Case):
    def check_usage(self, arguments, *words, **variables):
        """Exit code 2, nothing on standard output, and each word in the one line of the error."""
        finished = run(*arguments, **variables)
        with self.subTest(arguments=arguments, variables=variables):
            self.assertEqual(finished.returncode, 2, finished.stderr)
            self.assertEqual(finished.stdout, "")
            self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
            for word in words:
                self.assertIn(word, finished.stderr)

    def config(self, *arguments, **variables):
        finished = run("serve", *arguments, "--print-config", **variables)
        self.assertEqual(finished.returncode, 0, finished.stderr)
        return json.loads(finished.stdout)


class Help(CommandLineCase):
    def options_of(self, *arguments):
        finished = run(*arguments, "--help")
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))
        self.assertTrue(finished.stdout.startswith("usage: vitserve "))
        for command in COMMANDS:
            self.assertRegex(finished.stdout, rf"vitserve \[?{command}\b")
        return set(OPTION.findall(finished.stdout))

    def test_every_command_lists_its_options(self):
        every = {"config", "log-level", "log-format"}
        common = every | {"model"}
        engine = common | {"weights", "weights-dir", "random-weights", "device", "precision",
                           "threads"}
        images = engine | {"labels", "top-k", "max-batch", "max-pixels", "decode-threads",
                           "exif-orientation", "fast-decode", "max-decode-bytes"}
        wanted = {"serve": images | {"listen", "port", "max-queue", "max-body-bytes",
                                     "max-images", "max-inflight-bytes", "max-connections",
                                     "max-request-pixels", "max-connections-per-address",
                                     "trusted-proxies", "admin-listen", "allowed-hosts",
                                     "drain-timeout-ms", "drain-delay-ms", "request-timeout-ms",
                                     "idle-timeout-ms", "admin-port", "api-key-file", "tls-cert",
                                     "tls-key", "cors-origin", "print-config"},
                  "classify": images | {"json", "logits"},
                  "model": common | {"format"},
                  "bench": engine | {"json", "batch", "seconds"},
                  "pull": every | {"weights-dir", "dir", "url", "sha256", "check"},
                  "healthcheck": every | {"listen", "port", "admin-port", "admin-listen"}}
        listed = {command: self.options_of(command) for command in COMMANDS}
        for command in COMMANDS:
            self.assertEqual(wanted[command], listed[command], command)
        self.assertNotIn("port", listed["classify"])
        self.assertNotIn("json", listed["serve"])
        self.assertEqual(self.options_of(), listed["serve"])
        self.assertEqual({name.replace("-", "_") for names in listed.values() for name in names},
                         set(self.config()))

    def test_help_wins_over_everything_else(self):
        self.assertEqual(self.options_of("serve", "--prot", "x"), self.options_of("serve"))

    def test_version(self):
        finished = run("--version")
        self.assertEqual(finished.returncode, 0)
        self.assertRegex(finished.stdout, r"\Avitserve \d+\.\d+\.\d+\n\Z")


class Options(CommandLineCase):
    def test_precedence(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"top_k": 1, "port": 1, "max_images": 1, "json": True}, file)
            file.flush()
            for config in (self.config("--config", file.name, "--top-k=3", VITSERVE_TOP_K="2",
                                       VITSERVE_PORT="2"),
                           self.config("--top-k", 3, VITSERVE_CONFIG=file.name,
                                       VITSERVE_TOP_K="2", VITSERVE_PORT="2")):
                self.assertEqual((config["top_k"], config["port"], config["max_images"]),
                                 (3, 2, 1))
                self.assertEqual(config["config"], file.name)
                self.assertEqual(config["max_connections"], 4096)

    def test_print_config_is_a_config_file(self):
        first = self.config("--max-batch", 7, "--listen", "::1", "--precision", "bf16")
        self.assertEqual(first["max_batch"], 7)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({name: value for name, value in first.items()
                       if name not in ("config", "print_config")}, file)
            file.flush()
            second = self.config("--config", file.name)
        self.assertEqual(second | {"config": ""}, first)

    def test_unknown_option(self):
        self.check_usage(["serve", "--prot", "80"], "--prot")
        self.check_usage(["--prot=80"], "--prot=80")
        self.check_usage(["serve", "--json"], "--json")
        self.check_usage(["healthcheck", "--model", "vit_b_16"], "--model")
        self.check_usage(["classify", "--port", "80", "x.jpg"], "--port")
        self.check_usage(["model", "--top-k=5"], "--top-k")
        self.check_usage(["serve", "--port"], "--port", "value")

    def test_words_that_are_no_command(self):
        self.check_usage(["server"], '"server"')
        self.check_usage(["serve", "x.jpg"], '"x.jpg"')
        self.check_usage(["model", "vit_b_16"], '"vit_b_16"')
        self.check_usage(["healthcheck", "localhost"], '"localhost"')
        self.check_usage(["-v"], '"-v"')
        self.check_usage(["classify"], "no image")

    def test_out_of_range(self):
        for option, value, limits in (("port", "65536", "from 0 to 65535"),
                                      ("port", "-1", "from 0 to 65535"),
                                      ("port", "http", "from 0 to 65535"),
                                      ("port", "", "from 0 to 65535"),
                                      ("top-k", "0", "from 1 to "),
                                      ("max-images", "4097", "from 1 to 4096"),
                                      ("max-batch", "1e3", "from 0 to 4096"),
                                      ("max-body-bytes", "99999999999999999999", "from 1 to ")):
            variable = "VITSERVE_" + option.upper().replace("-", "_")
            self.check_usage(["serve", "--" + option, value], "--" + option, f'"{value}"', limits)
            if value:  # an empty variable is an unset one
                self.check_usage(["serve"], variable, f'"{value}"', limits, **{variable: value})

    def test_unknown_choice(self):
        for option, value, choices in (("device", "gpu", "auto|cpu|cuda"),
                                       ("precision", "fp64", "auto|fp32|tf32|bf16|fp16|int8|fp8"),
                                       ("log-level", "", "error|warning|info|debug")):
            self.check_usage(["serve", "--" + option, value], "--" + option, f'"{value}"', choices)
        self.check_usage(["model", "--format", "yaml"], "--format", '"yaml"', "json|markdown")

    def test_bad_config_file(self):
        for text, word in (("{", "line 1"), ("[]", "object"), ('{"topk": 5}', "topk"),
                           ('{"top_k": 0}', '"top_k"'), ('{"config": "x"}', '"config"')):
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(text)
                file.flush()
                self.check_usage(["serve", "--config", file.name], file.name, word)
        self.check_usage(["serve", "--config", "/nowhere.json"], "/nowhere.json")

    def test_unknown_variable_only_warns(self):
        finished = run("serve", "--print-config", VITSERVE_PROT="80")
        self.assertEqual(finished.returncode, 0)
        self.assertIn("warning", finished.stderr)
        self.assertIn("VITSERVE_PROT", finished.stderr)
        json.loads(finished.stdout)

    def test_a_variable_of_another_command(self):
        """A probe in the same environment does not pass because it prints the configuration."""
        finished = run("healthcheck", "--port", 1, VITSERVE_PRINT_CONFIG="1")
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))

    def test_an_empty_variable_is_an_unset_one(self):
        plain = self.config()
        empty = {f"VITSERVE_{name.upper()}": "" for name in (*plain, "no_option")}
        self.assertEqual(self.config(**empty), plain)
        self.assertEqual(run("serve", "--print-config", **empty).stderr, "")
        with tempfile.NamedTemporaryFile("wb", suffix=".json") as file:
            file.write(b'\xef\xbb\xbf{"top_k": 3, "listen": "::1", "log_format": "json"}')
            file.flush()
            config = self.config("--config", file.name, **empty)
        self.assertEqual((config["top_k"], config["listen"], config["log_format"]),
                         (3, "::1", "json"))

    def test_variables_of_kubernetes(self):
        kubernetes = {"VITSERVE_PORT": "tcp://10.96.7.1:8080",
                      "VITSERVE_SERVICE_HOST": "10.96.7.1",
                      "VITSERVE_SERVICE_PORT": "8080",
                      "VITSERVE_PORT_8080_TCP": "tcp://10.96.7.1:8080",
                      "VITSERVE_PORT_8080_TCP_PROTO": "tcp"}
        self.assertEqual(self.config(**kubernetes)["port"], 8080)
        with Server("--max-batch", 1, variables=kubernetes) as server:
            self.check_good(server)

    def test_options_reach_the_server(self):
        with tempfile.NamedTemporaryFile("w") as labels:
            labels.writelines(f"label {i}\n" for i in range(1000))
            labels.flush()
            with Server("--labels", labels.name, "--max-batch", 3, "--max-pixels", 600,
                        "--threads", 1, model=MODEL,
                        variables={"VITSERVE_TOP_K": "2"}) as server:
                for prediction in server.classify(png(30, 20)).results[0]["predictions"]:
                    self.assertEqual(prediction["label"], f"label {prediction['class']}")
                self.check_error(server.classify(png(31, 20)), 413, "image_too_large")
                runtime = server.request("GET", "/model").json["runtime"]
                self.assertEqual(runtime["max_batch"], 3)


class Model(CommandLineCase):
    def test_formats(self):
        text = run("model", "--model", "vit_b_32")
        self.assertEqual(text.returncode, 0)
        self.assertEqual(text.stdout,
                         run("model", "--model", "vit_b_32", "--format", "text").stdout)
        self.assertIn("vit_b_32: 152 layers, 88224232 parameters (88.22M)\n", text.stdout)
        model = json.loads(run("model", "--model", "vit_b_32", "--format", "json").stdout)
        self.assertEqual((model["name"], model["num_layers"], model["num_parameters"],
                          model["num_parameters_human"]),
                         ("vit_b_32", 152, 88224232, "88.22M"))
        self.assertEqual(model["forms"][0], {"form": "Vector", "layers": 101,
                                             "layers_percent": 66.45, "parameters": 123880,
                                             "parameters_percent": 0.14})
        self.assertNotIn("runtime", model)
        markdown = run("model", "--model=vit_b_32", "--format=markdown").stdout
        self.assertIn("88.22M", markdown)
        for layer in model["layers"]:
            self.assertIn(layer["name"], text.stdout)
            self.assertIn(layer["name"], markdown)

    def test_every_model_has_a_breakdown(self):
        finished = run("model", "--model", "nonsense")
        self.assertEqual(finished.returncode, 2)
        for name, parameters in (("vit_b_16", 86567656), ("vit_b_32", 88224232),
                                 ("vit_l_16", 304326632), ("vit_l_32", 306535400),
                                 ("vit_h_14", 632045800), ("deit_tiny_patch16_224", 5717416),
                                 ("fashion_vit", 907914)):
            self.assertIn(name, finished.stderr)
            model = json.loads(run("model", "--model", name, "--format", "json").stdout)
            self.assertEqual(model["num_parameters"], parameters)
            svg = run("model", "--model", name, "--format", "svg").stdout
            texts = " ".join(xml.etree.ElementTree.fromstring(svg).itertext())
            self.assertIn(f"{name}: {model['num_parameters_human']} parameters", texts)
            for form in model["forms"]:
                self.assertIn(f"{form['form']}: {form['parameters_percent']:.2f} %, ", texts)


class Healthcheck(Case):
    def check(self, finished, code, *words):
        self.assertEqual((finished.returncode, finished.stdout), (code, ""), finished.stderr)
        self.assertEqual(finished.stderr.count("\n"), code)
        for word in words:
            self.assertIn(word, finished.stderr)

    @contextlib.contextmanager
    def answering(self, *pieces, pause=0.0):
        """A server that answers one connection with these pieces, then closes; yields its port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def answer():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    self.request = connection.recv(4096)
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            yield listener.getsockname()[1]
            thread.join()

    def test_a_server_that_is_ready(self):
        with Server("--max-batch", 1) as server:
            self.check(run("healthcheck", "--port", server.port), 0)
            self.check(run("healthcheck", VITSERVE_PORT=str(server.port)), 0)
            self.check(run("healthcheck", "--port", server.port, "--listen", "0.0.0.0"), 0)
            self.check(run("healthcheck", "--port", server.port, "--listen", "::1"), 1, "::1 port")

    def test_the_admin_port_is_asked_where_there_is_one(self):
        with socket.socket() as other, self.answering(b"HTTP/1.1 200 OK\r\n\r\n") as admin_port:
            other.bind(("127.0.0.1", 0))  # but does not listen
            port = other.getsockname()[1]
            self.check(run("healthcheck", "--port", port, "--admin-port", admin_port), 0)
            self.check(run("healthcheck", "--port", port), 1, f"port {port}: Connection refused")

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.check(run("healthcheck", "--port", port), 1, f"127.0.0.1 port {port}: "
                   "Connection refused")

    def test_a_server_that_is_not_ready(self):
        body = b'{"error": "not ready: draining\\n\\u001b", "code": "draining"}'
        with self.answering(b"HTTP/1.1 50", b"3 Service Unavailable\r\nContent-Type: application/json"
                            b"\r\n\r\n" + body, pause=0.05) as port:
            self.check(run("healthcheck", "--port", port), 1, "status 503, not ready: draining  \n")
        self.assertRegex(self.request, rb"\AGET /readyz HTTP/1\.1\r\nHost: localhost\r\n"
                                       rb"(.*\r\n)*\r\n\Z")
        for answer, words in ((b"HTTP/1.1 404 Not Found\r\n\r\n<html>", "status 404\n"),
                              (b"HTTP/1.1 201 Created\r\n\r\n", "status 201\n"),
                              (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204\n"),
                              (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "status 302\n"),
                              (b"HTTP/1.1 503 x\r\n\r\n{\"error\": 1}", "status 503\n"),
                              (b"HTTP/1.1 503 x\r\n\r\n[" * 2000, "status 503\n"),
                              (b"SSH-2.0-x\r\n", "no HTTP server"), (b"\0" * 9999, "no HTTP"),
                              (b"", "no HTTP server")):
            with self.answering(answer) as port:
                self.check(run("healthcheck", "--port", port), 1, words)

    def test_a_server_that_says_nothing(self):
        for pieces, pause in (((b"",), 5), ((b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n"] * 9), 0.5)):
            with self.answering(*pieces, pause=pause) as port:
                start = time.monotonic()
                self.check(run("healthcheck", "--port", port), 1, "no answer in time")
                seconds = time.monotonic() - start
                self.assertTrue(2.8 < seconds < 10, seconds)


if __name__ == "__main__":
    unittest.main()
