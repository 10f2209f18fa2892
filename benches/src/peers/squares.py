"""squares.py PEER ITEMS SINGLES: W1 on a pool of Python's own, as lines of JSON."""

import concurrent.futures
import json
import multiprocessing
import statistics
import sys
import time

WORKERS = 2


def square(x):
    return x * x


def start(peer):
    """A map(xs, chunk), and whether it chooses a chunk size by itself."""
    fork = multiprocessing.get_context("fork")
    if peer == "mp.Pool":
        pool = fork.Pool(WORKERS)
        return (lambda xs, chunk: pool.map(square, xs, chunk)), True
    pool = concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=fork)
    return (lambda xs, chunk: list(pool.map(square, xs, chunksize=chunk))), False


def seconds(run, xs, chunk):
    begin = time.perf_counter()
    ys = run(xs, chunk)
    took = time.perf_counter() - begin
    assert len(ys) == len(xs) and all(y == x * x for x, y in zip(xs, ys))
    return took


def main():
    peer, items, singles = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run, chooses = start(peer)
    cases = [("auto", items, None)] if chooses else []
    cases += [(f"chunk={chunk}", items, chunk) for chunk in (1_000, 10_000, 50_000)]
    cases += [("chunk=1", singles, 1)]
    for case, count, chunk in cases:
        xs = range(count)
        first = seconds(run, xs, chunk)
        # What takes long is measured once.
        typical = first if first > 1.5 else statistics.median(seconds(run, xs, chunk) for _ in range(3))
        figure = dict(w="W1", peer=peer, case=case, metric="items_per_s", value=count / typical)
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
