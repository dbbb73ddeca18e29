"""Posts a file with requests, httpx or aiohttp. A line for each try: the status, or what went wrong.

usage: send.py LIBRARY TRIES URL FILE length|chunked
"""

import asyncio
import pathlib
import sys

KEY = {"Authorization": "Bearer wrong"}
PIECE = 1 << 16


def pieces(data):
    for start in range(0, len(data), PIECE):
        yield data[start:start + PIECE]


async def async_pieces(data):
    for piece in pieces(data):
        yield piece


def with_requests(url, data, chunked):
    import requests
    body = pieces(data) if chunked else data
    return requests.post(url, data=body, headers=KEY, timeout=60).status_code


def with_httpx(url, data, chunked):
    import httpx
    body = pieces(data) if chunked else data
    return httpx.post(url, content=body, headers=KEY, timeout=60).status_code


def with_aiohttp(url, data, chunked):
    import aiohttp

    async def post():
        body = async_pieces(data) if chunked else data
        async with aiohttp.ClientSession() as session:
            async with session.post(url, data=body, headers=KEY) as answer:
                return answer.status
    return asyncio.run(post())


def main(library, tries, url, file, way):
    data = pathlib.Path(file).read_bytes()
    for _ in range(int(tries)):
        try:
            print(globals()["with_" + library](url, data, way == "chunked"), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)


main(*sys.argv[1:])
