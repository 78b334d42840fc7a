"""The loop of every Python worker (see ../common.py). Standard library and pandas only: peers run it too."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


class LeftOutError(Exception):
    """Why this program cannot fit this model."""


def say(answer: dict[str, Any]) -> None:
    """One line of JSON behind the mark."""
    print("@@" + json.dumps(answer), flush=True)


def read(spec: dict[str, Any]) -> Any:
    """The data with ids as categories, as R has them."""
    import pandas as pd

    data = pd.read_csv(spec["file"], dtype=dict.fromkeys(spec["factors"], str))
    return data.astype(dict.fromkeys(spec["factors"], "category"))


def combined(data: Any, group: str) -> Any:
    """Integer codes of a grouping factor, `a:b` being all combinations that occur."""
    parts = group.split(":")
    codes = data[parts[0]].cat.codes.to_numpy("int64")
    for part in parts[1:]:
        codes = codes * len(data[part].cat.categories) + data[part].cat.codes.to_numpy("int64")
    return codes


def serve(prepare: Callable[[dict[str, Any]], dict[str, Callable[..., dict[str, Any]]]]) -> None:
    """Answer commands until the input ends. `prepare(spec)` returns functions by command; `go` is timed."""
    try:
        answers = prepare(json.loads(sys.argv[1]))
    except LeftOutError as reason:
        for _ in sys.stdin:
            say({"left_out": str(reason)})
        return
    except ImportError as reason:
        for _ in sys.stdin:
            say({"left_out": f"not installed ({reason})"})
        return
    for line in sys.stdin:
        command, *arguments = line.split(maxsplit=1)
        try:
            start = time.perf_counter()
            answer = answers[command](*arguments)
            if command == "go":
                answer = {"seconds": time.perf_counter() - start, **(answer or {})}
        except LeftOutError as reason:
            answer = {"left_out": str(reason)}
        except MemoryError:
            answer = {"left_out": "out of memory"}
        except Exception as error:  # whatever a peer raises is the reason why its cell is empty
            text = " ".join(str(error).split())
            answer = {"left_out": f"{type(error).__name__}: {text[:160]}"}
            traceback.print_exc()
        say(answer)
