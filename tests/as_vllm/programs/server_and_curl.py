"""Starts the server as a child, and asks it by curl. The arguments are those of the server."""

import json
import shutil
import subprocess
import sys
import urllib.request


def ask(url, body=None):
    header, data = "Content-Type: application/json", json.dumps(body)
    if shutil.which("curl"):
        more = [] if body is None else ["-H", header, "-d", data]
        return subprocess.run(
            ["curl", "-sS", url, *more], capture_output=True, text=True, check=True
        ).stdout
    request = urllib.request.Request(url, None if body is None else data.encode())
    request.add_header(*header.split(": "))
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


server = subprocess.Popen(
    [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *sys.argv[1:]],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
try:
    url, lines = "", []
    for line in server.stdout:
        lines.append(line)
        if "listening at " in line:
            url = line.split("listening at ")[1].split()[0]
        if "ready:" in line:
            break
    else:
        sys.exit("".join(lines))
    body = {"model": "qwen/Qwen-7B-Chat", "prompt": "San Francisco is a"}
    body |= {"max_tokens": 7, "temperature": 0}
    print(ask(f"{url}/v1/models"), flush=True)
    print(ask(f"{url}/v1/completions", body), flush=True)
    print(url, flush=True)
    sys.stdin.readline()  # others may ask now
finally:
    server.terminate()
    server.wait(20)
