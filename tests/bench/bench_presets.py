#!/usr/bin/python3
"""How good recipes of `recctl train` rank: on validation slices cut from a training file, so that a preset is never chosen on test data; on a test file; on logs.

  bench_presets.py train.tsv                               the three presets on two slices
  bench_presets.py train.tsv --recipe "--preset quality --hard_of 8 --reg 0.05" --recipe "--preset quality"
  bench_presets.py train.tsv --test test.tsv --seeds 1,2,3  the three presets on the test file, for the final figures only
  bench_presets.py --logs 2000,5000,2000000 --seeds 42,43,44
                                                           plain flags for long training and the presets on synthetic logs of so many users, items and
                                                           impressions (a seed is that of the logs, too), judged on the last tenth of the watches; K is 50

train.tsv: user, item and any further columns, separated by tabs, one pair a line. A slice is every pair whose SHA-256 with the slice's number falls into its fifth.
RECCTL names the program (default build/recctl). Prints figures, asserts nothing; says what it is at on a terminal only.
"""
import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile

RECCTL = os.environ.get("RECCTL", "build/recctl")
PRESETS = ["--preset fast", "--preset default", "--preset quality"]
PLAIN = "--epochs 5 --steps_per_epoch 3000 --batch_size 2048 --emb_dim 64 --lr 0.02"
GOAL = 0.97  # of PLAIN, for --preset quality


def recctl(*arguments):
    run = subprocess.run([RECCTL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"recctl {shlex.join(arguments)}\n{run.stderr[-2000:]}")
    return run.stdout


def say(text):
    if sys.stderr.isatty():
        print(f"bench_presets: {text}", file=sys.stderr)


def cut(lines, number, folder):
    """Writes the slice and the rest; returns (rest, slice) paths."""
    paths = [os.path.join(folder, f"{name}{number}.tsv") for name in ("rest", "slice")]
    with open(paths[0], "w", encoding="utf-8") as rest, open(paths[1], "w", encoding="utf-8") as held_out:
        for line in lines:
            pair = "\t".join(line.split("\t")[:2]).strip()
            digest = hashlib.sha256(f"{number}:{pair}".encode()).digest()
            (held_out if digest[0] < 51 else rest).write(line)
    return paths


def pair_runs(args, folder):
    """(name, seed, flags that name the data) of each run on pairs."""
    if args.test:
        files = [(args.train, args.test)]
    else:
        with open(args.train, encoding="utf-8") as file:
            lines = file.readlines()
        files = [cut(lines, number, folder) for number in range(args.slices)]
    return [(f"seed {seed}" if args.test else f"slice {number}, seed {seed}", seed, ["--train_tsv", train, "--test_tsv", test])
            for number, (train, test) in enumerate(files) for seed in args.seeds]


def log_runs(args, folder):
    """The same for logs: logs of its own for each seed."""
    users, items, impressions = args.logs.split(",")
    runs = []
    for seed in args.seeds:
        say(f"synthetic logs, seed {seed}")
        data, out = os.path.join(folder, f"logs{seed}"), os.path.join(folder, "model")
        recctl("synth", "--out_dir", data, "--num_users", users, "--num_items", items, "--num_impressions", impressions, "--seed", str(seed))
        runs.append((f"seed {seed}", seed, ["--data_dir", data, "--out_dir", out, "--holdout", "0.1"]))
    return runs


def train(recipe, data, args, seed):
    """(recall, ndcg, seconds) of one run."""
    result = json.loads(recctl("train", *data, "--k_eval", str(args.k), "--personalize_steps", "0", "--knn", "0", "--bootstrap", "0", "--threads",
                               str(args.threads), "--seed", str(seed), "--json", *shlex.split(recipe)))
    judged = result["metrics"]["global"]
    return judged["recall"], judged["ndcg"], result["train_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="?", help="training pairs")
    parser.add_argument("--test", help="judge on this file instead of slices")
    parser.add_argument("--logs", metavar="USERS,ITEMS,IMPRESSIONS", help="synthetic logs instead of pairs")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--seeds", default="1", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int)
    parser.add_argument("--recipe", action="append", help="flags of recctl train; may stand more than once")
    args = parser.parse_args()
    if (args.train is None) == (args.logs is None):
        parser.error("name either a training file or --logs")
    args.k = args.k or (50 if args.logs else 20)
    recipes = args.recipe or ([PLAIN] if args.logs else []) + PRESETS
    ndcg = {}
    with tempfile.TemporaryDirectory(prefix="recd-presets.") as folder:
        runs = log_runs(args, folder) if args.logs else pair_runs(args, folder)
        print(f"{f'Recall@{args.k}':>9}  {f'NDCG@{args.k}':>7}  seconds  recipe   (means; in brackets NDCG of {'; '.join(name for name, _, _ in runs)})")
        for recipe in recipes:
            results = []
            for name, seed, data in runs:
                say(f"{recipe}: {name}")
                results.append(train(recipe, data, args, seed))
            ndcg[recipe] = [result[1] for result in results]
            recall, mean, seconds = (sum(column) / len(runs) for column in zip(*results))
            print(f"{recall:9.4f}  {mean:7.4f}  {seconds:7.2f}  {recipe}  ({', '.join(f'{figure:.4f}' for figure in ndcg[recipe])})", flush=True)
    if args.logs and not args.recipe:
        ratios = [ours / plain for ours, plain in zip(ndcg[PRESETS[-1]], ndcg[PLAIN])]
        print(f"NDCG of {PRESETS[-1]} / of the plain flags: {sum(ratios) / len(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); goal: {GOAL} or more")


if __name__ == "__main__":
    main()
