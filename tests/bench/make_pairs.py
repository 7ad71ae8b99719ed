#!/usr/bin/python3
"""Writes synthetic (user, item) pairs of a given shape as a TSV file, for bench_presets.py.

  make_pairs.py sparse out.tsv     30,000 users x 41,000 items, 0.8 M pairs: few pairs an item, tastes local
  make_pairs.py noisy out.tsv      the same size, tastes weak
  make_pairs.py places out.tsv     the same size, 1 M pairs: people and what they visit on a map of 1,500 towns
  make_pairs.py dense out.tsv      6,000 x 3,700, 1 M pairs
  make_pairs.py small out.tsv      943 x 1,682, 0.1 M pairs

Popularity and activity follow power laws. A pair's chance is popularity times closeness of the item to the nearest of the user's few interests: tastes on a sphere,
exp(beta times the cosine); on a map, (1 + distance / near)^-steep, where towns are many more than a model has dimensions, and a share `strays` of the pairs is
drawn by popularity alone. What a user takes is drawn without replacement (Gumbel). Needs numpy. The same name gives the same pairs.
"""
import sys

import numpy as np

SHAPES = {
    "sparse": dict(users=30000, items=41000, pairs=810000, seed=0, dim=12, clusters=600, popularity=0.7, beta=7.0, interests=2, at_least=8, spread=0.35),
    "noisy": dict(users=30000, items=41000, pairs=810000, seed=0, dim=12, clusters=200, popularity=0.6, beta=3.0, interests=3, at_least=8, spread=0.6),
    "places": dict(users=30000, items=41000, pairs=1020000, seed=5, towns=1500, popularity=0.8, near=0.004, steep=2.4, at_least=12, spread=0.004, away=0.5, strays=0.2),
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


def zipf(n, power):
    size = 1 / np.arange(1, n + 1) ** power
    return size / size.sum()


class Sphere:
    """Tastes on a sphere: clusters of items, users near clusters."""

    def __init__(self, random, shape):
        self.random, self.shape = random, shape
        self.centres = random.normal(size=(shape["clusters"], shape["dim"]))
        self.size = zipf(shape["clusters"], 0.5)
        self.items = self.near(shape["items"]).astype(np.float32)

    def near(self, n):
        shape, random = self.shape, self.random
        return on_sphere(self.centres[random.choice(shape["clusters"], n, p=self.size)] + shape["spread"] * random.normal(size=(n, shape["dim"])))

    def closeness(self, n):
        """(n users, items): log of how much each is drawn to each."""
        shape, random = self.shape, self.random
        log = np.full((n, shape["items"]), -np.inf, np.float32)
        for _ in range(shape["interests"]):
            interest = (shape["beta"] * np.sqrt(shape["dim"]) * self.near(n)).astype(np.float32)
            np.maximum(log, interest @ self.items.T + np.float32(np.log(random.random() + 0.2)), out=log)
        return log


class Map:
    """Towns on a map, large and small; a user is at home in one and now and then somewhere else, there or in another town."""

    def __init__(self, random, shape):
        self.random, self.shape = random, shape
        self.centres = random.random((shape["towns"], 2)).astype(np.float32)
        self.size = zipf(shape["towns"], 0.8)
        self.items = self.somewhere(self.towns(shape["items"]))

    def towns(self, n):
        return self.random.choice(self.shape["towns"], n, p=self.size)

    def somewhere(self, towns):
        width = self.shape["spread"] * np.sqrt(self.size[towns] * len(self.size))
        return (self.centres[towns] + width[:, None] * self.random.normal(size=(len(towns), 2))).astype(np.float32)

    def closeness(self, n):
        """(n users, items): log of how much each is drawn to each."""
        shape, random = self.shape, self.random
        home = self.towns(n)
        other = np.where(random.random(n) < shape["away"], self.towns(n), home)
        log = np.full((n, shape["items"]), -np.inf, np.float32)
        for towns, share in ((home, np.ones(n)), (other, random.random(n) + 0.1)):
            at = self.somewhere(towns)
            distance = np.hypot(at[:, :1] - self.items[:, 0], at[:, 1:] - self.items[:, 1])
            np.maximum(log, np.log(share).astype(np.float32)[:, None] - np.float32(shape["steep"]) * np.log1p(distance / np.float32(shape["near"])), out=log)
        return log


def gumbel(random, log_chance):
    return log_chance - np.log(np.maximum(random.standard_exponential(log_chance.shape, np.float32), np.float32(1e-30)))


def take(keys, count):
    return np.argpartition(-keys, count)[:count]


def write_pairs(shape, out):
    random = np.random.default_rng(shape["seed"])
    world = (Map if "towns" in shape else Sphere)(random, shape)
    log_popularity = (-shape["popularity"] * np.log(random.permutation(shape["items"]) + 21.0)).astype(np.float32)
    counts, strays = activity(random, shape), shape.get("strays", 0)
    for begin in range(0, shape["users"], BLOCK):
        n = min(BLOCK, shape["users"] - begin)
        keys = gumbel(random, world.closeness(n) + log_popularity)
        anywhere = gumbel(random, np.broadcast_to(log_popularity, keys.shape)) if strays else None
        for k in range(n):
            count = counts[begin + k]
            stray = random.binomial(count, strays) if strays else 0
            taken = take(keys[k], count - stray)
            if stray:
                anywhere[k, taken] = -np.inf
                taken = np.concatenate([taken, take(anywhere[k], stray)])
            for item in taken:
                out.write(f"{begin + k}\t{item}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        raise SystemExit(__doc__)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        write_pairs(SHAPES[sys.argv[1]], file)
