#!/usr/bin/python3
"""Writes synthetic (user, item) pairs of a given shape as a TSV file, for bench_presets.py: tastes on a sphere, clusters of items, power laws on both sides.

  make_pairs.py sparse out.tsv     30,000 users x 41,000 items, 0.8 M pairs: few pairs an item, tastes local
  make_pairs.py noisy out.tsv      the same size, tastes weak
  make_pairs.py dense out.tsv      6,000 x 3,700, 1 M pairs
  make_pairs.py small out.tsv      943 x 1,682, 0.1 M pairs

Each user has a few interests; a pair's chance is popularity times exp(beta times the cosine of item and nearest interest); what a user takes is drawn without
replacement (Gumbel). Needs numpy. The same name gives the same pairs.
"""
import sys

import numpy as np

SHAPES = {
    "sparse": dict(users=30000, items=41000, pairs=810000, seed=0, dim=12, clusters=600, popularity=0.7, beta=7.0, interests=2, at_least=8, spread=0.35),
    "noisy": dict(users=30000, items=41000, pairs=810000, seed=0, dim=12, clusters=200, popularity=0.6, beta=3.0, interests=3, at_least=8, spread=0.6),
    "dense": dict(users=6000, items=3700, pairs=1000000, seed=3, dim=10, clusters=60, popularity=0.9, beta=1.5, interests=3, at_least=20, spread=0.6),
    "small": dict(users=943, items=1682, pairs=100000, seed=4, dim=16, clusters=40, popularity=1.0, beta=2.0, interests=2, at_least=20, spread=0.6),
}
BLOCK = 200  # users at a time


def on_sphere(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def activity(random, shape):
    """Pairs of each user: Pareto, scaled to the wanted total."""
    counts = random.pareto(1.6, shape["users"]) + 1
    for _ in range(2):
        counts = np.maximum(shape["at_least"], counts / counts.sum() * shape["pairs"]).astype(int)
        counts = np.minimum(counts, shape["items"] // 4)
    return counts


def write_pairs(shape, out):
    random = np.random.default_rng(shape["seed"])
    centres = random.normal(size=(shape["clusters"], shape["dim"]))
    size = 1 / np.sqrt(np.arange(1, shape["clusters"] + 1))
    size /= size.sum()
    near = lambda n: centres[random.choice(shape["clusters"], n, p=size)] + shape["spread"] * random.normal(size=(n, shape["dim"]))
    items = on_sphere(near(shape["items"])).astype(np.float32)
    log_popularity = (-shape["popularity"] * np.log(random.permutation(shape["items"]) + 21.0)).astype(np.float32)
    counts = activity(random, shape)
    for begin in range(0, shape["users"], BLOCK):
        n = min(BLOCK, shape["users"] - begin)
        chance = np.full((n, shape["items"]), -np.inf, np.float32)
        for _ in range(shape["interests"]):
            interest = (shape["beta"] * np.sqrt(shape["dim"]) * on_sphere(near(n))).astype(np.float32)
            np.maximum(chance, interest @ items.T + np.float32(np.log(random.random() + 0.2)), out=chance)
        chance += log_popularity - np.log(random.standard_exponential(chance.shape, np.float32))
        for k in range(n):
            for item in np.argpartition(-chance[k], counts[begin + k])[: counts[begin + k]]:
                out.write(f"{begin + k}\t{item}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        raise SystemExit(__doc__)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        write_pairs(SHAPES[sys.argv[1]], file)
