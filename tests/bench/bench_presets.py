#!/usr/bin/python3
"""Ranks recipes of `recctl train` on validation slices cut from a training file, so that a preset is never chosen on test data.

  bench_presets.py train.tsv                              the three presets on two slices
  bench_presets.py train.tsv --recipe "--preset quality --hard_of 8 --reg 0.05" --recipe "--preset quality"
  bench_presets.py train.tsv --test test.tsv --seeds 3    the three presets on the test file, for the final figures only

train.tsv: user, item and any further columns, separated by tabs, one pair a line. A slice is every pair whose SHA-256 with the slice's number falls into its fifth.
RECCTL names the program (default build/recctl).
"""
import argparse
import hashlib
import json
import os
import shlex
import subprocess
import tempfile

RECCTL = os.environ.get("RECCTL", "build/recctl")
PRESETS = ["--preset fast", "--preset default", "--preset quality"]


def cut(lines, number, folder):
    """Writes the slice and the rest; returns (rest, slice) paths."""
    paths = [os.path.join(folder, f"{name}{number}.tsv") for name in ("rest", "slice")]
    with open(paths[0], "w", encoding="utf-8") as rest, open(paths[1], "w", encoding="utf-8") as held_out:
        for line in lines:
            pair = "\t".join(line.split("\t")[:2]).strip()
            digest = hashlib.sha256(f"{number}:{pair}".encode()).digest()
            (held_out if digest[0] < 51 else rest).write(line)
    return paths


def train(recipe, train_tsv, test_tsv, args, seed):
    """(recall, ndcg, seconds) of one run."""
    command = [RECCTL, "train", "--train_tsv", train_tsv, "--test_tsv", test_tsv, "--k_eval", str(args.k), "--personalize_steps", "0",
               "--threads", str(args.threads), "--seed", str(seed), "--json", *shlex.split(recipe)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{run.stderr[-2000:]}")
    result = json.loads(run.stdout)
    judged = result["metrics"]["global"]
    return judged["recall"], judged["ndcg"], result["train_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="training pairs")
    parser.add_argument("--test", help="judge on this file instead of slices")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--recipe", action="append", help="flags of recctl train; may stand more than once")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.test:
            pairs = [(args.train, args.test)]
        else:
            with open(args.train, encoding="utf-8") as file:
                lines = file.readlines()
            pairs = [cut(lines, number, folder) for number in range(args.slices)]
        print(f"Recall@{args.k}  NDCG@{args.k}  seconds  recipe   (means over {len(pairs)} {'file' if args.test else 'slices'}, {args.seeds} seeds)")
        for recipe in args.recipe or PRESETS:
            runs = [train(recipe, *pair, args, seed) for pair in pairs for seed in range(1, args.seeds + 1)]
            mean = [sum(column) / len(runs) for column in zip(*runs)]
            print(f"{mean[0]:9.4f}  {mean[1]:7.4f}  {mean[2]:7.2f}  {recipe}", flush=True)


if __name__ == "__main__":
    main()
