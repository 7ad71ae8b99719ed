"""Documents that must say what the programs say: the configuration page, the man pages, links and script names."""
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECD = os.environ.get("RECD", os.path.join(ROOT, "build/recd"))
RECCTL = os.environ.get("RECCTL", os.path.join(ROOT, "build/recctl"))
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9_-]+)")


def output(*command):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as text:
        return text.read()


def plain_text(page):
    """A man page without the escapes that would hide an option: \\- is a hyphen, \\fB and its like are fonts."""
    return re.sub(r"\\f[BIRP]", "", read(page).replace("\\-", "-")).replace("\\_", "_")


def test_configuration_page_is_the_option_table():
    assert read("docs/CONFIGURATION.md") == output(RECD, "--describe-config"), "run `make docs`"


def test_recd_man_page_names_every_option():
    options = set(OPTION.findall(output(RECD, "--help")))
    assert options
    assert sorted(options - set(OPTION.findall(plain_text("packaging/recd.8")))) == []


def test_recctl_man_page_is_what_recctl_says():
    assert read("packaging/recctl.1") == output(os.path.join(ROOT, "scripts/help-to-man"), RECCTL), "run `make docs`"


def test_recctl_man_page_has_every_command():
    page = plain_text("packaging/recctl.1")
    commands = {"synth", "train", "evaluate", "explain", "top", "status", "snapshot"}
    assert commands <= set(re.findall(r"^\.SS (\w+)$", page, re.M))
    for command in sorted(commands):
        section = re.search(rf"^\.SS {command}$(.*?)^\.S[SH] ", page, re.M | re.S).group(1)
        assert sorted(set(OPTION.findall(output(RECCTL, command, "--help"))) - set(OPTION.findall(section))) == []


@pytest.mark.parametrize("page", ["packaging/recd.8", "packaging/recctl.1"])
def test_man_pages_have_no_faults(page):
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("man or groff is not installed")
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", os.path.join(ROOT, page)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
    assert done.returncode == 0 and done.stderr == ""


def markdown_files():
    """Every page of the repository, with or without git; build folders and hidden ones are not of it."""
    found = []
    for where, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith((".", "build"))]
        found += [os.path.relpath(os.path.join(where, name), ROOT) for name in names if name.endswith(".md")]
    assert "README.md" in found
    return found


def test_links_between_documents_lead_somewhere():
    dead = []
    for name in markdown_files():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(name)):
            if not target.startswith("http") and not os.path.exists(os.path.join(ROOT, os.path.dirname(name), target)):
                dead.append(f"{name}: {target}")
    assert dead == []


def test_documents_name_only_targets_and_scripts_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    wrong = []
    for name in markdown_files():
        text = read(name)
        wrong += [f"{name}: make {t}" for t in re.findall(r"`make ([a-z-]+)", text) if t not in targets]
        wrong += [f"{name}: {s}" for s in re.findall(r"(?<![\w/])scripts/[\w-]+(?![\w-]*\.py)", text) if not os.path.exists(os.path.join(ROOT, s))]
    assert wrong == []
