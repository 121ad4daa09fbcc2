"""The frame of every command: global flags, finding the verb, and turning errors into lines and exit codes.

Exit codes: 0 success, 1 failure, 2 usage, 130 interrupted, 141 when the reader of our output went away. An error
that svcnat does not raise on purpose keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from svcnat.cli.terminal import say_error
from svcnat.cli.verbs import BY_NAME, PREFIXES, Verb, overview
from svcnat.errors import SvcnatError, UsageError

# kubectl takes these with or without a value; argparse would take the next argument for it.
_BARE_FLAGS = {"--dry-run": "--dry-run=client", "--validate": "--validate=strict"}

# What may be any bytes: files have such names, objects do not.
_BYTES = frozenset({"config", "state", "netns", "filename", "command", "arguments"})


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nSee '{self.prog} --help'.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is without the program's name."""
    _prepare_streams()
    options = argparse.Namespace(
        config=os.environ.get("SVCNAT_CONFIG") or None,
        state=os.environ.get("SVCNAT_STATE") or None,
        netns=os.environ.get("SVCNAT_NETNS") or None,
        lab=None,
        namespace=None,
        verbose=False,
    )
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv), options)
        sys.stdout.flush()
    except SvcnatError as error:
        say_error(error, causes=options.verbose)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_output()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename:
            raise
        _forget_output()
        say_error(SvcnatError(f"cannot write the output: {error.strerror}"))
        return 1
    except SystemExit as stop:  # argparse's way out of --help
        return stop.code if isinstance(stop.code, int) else 0
    return code


def _prepare_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # The caller closed it. Were it left so, the next file opened, perhaps the state, would take its number.
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the program runs
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its escape, never a traceback.
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Let standard output go nowhere, or Python complains again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str], options: argparse.Namespace) -> int:
    verb = _find_verb(argv, options)
    if verb is None:
        print(_help())
        return 0
    module = importlib.import_module(f"svcnat.cli.{verb.module}")
    first_line, _, more = str(module.__doc__).partition("\n")
    parser = _Parser(
        prog=f"svcnat {verb.name}",
        description=first_line,
        epilog=more.strip("\n") or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_global_flags()],
    )
    module.add_arguments(parser)
    arguments = [_BARE_FLAGS.get(argument, argument) for argument in options.arguments]
    if verb.command:
        split = arguments.index("--") if "--" in arguments else len(arguments)
        arguments, options.command = arguments[:split], options.arguments[split + 1 :]
        if not options.command and not {"-h", "--help"} & set(arguments):
            raise UsageError(f"say what to run after two dashes: {parser.usage}")
    parser.parse_intermixed_args(arguments, options)
    if options.lab:
        _forget_the_host(options)
    _require_text(options)
    return int(module.run(options))


def _find_verb(argv: list[str], options: argparse.Namespace) -> Verb | None:
    """Find the verb, None if help is wanted; `options` gets the flags before it and its ``arguments``."""
    parser = _Parser(prog="svcnat", add_help=False, allow_abbrev=False, parents=[_global_flags()])
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("verb", nargs="?", default="")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.parse_args(argv, options)
    name = options.verb
    while name in PREFIXES:
        before = name
        parser.parse_args(options.arguments, options)
        name = f"{name} {options.verb}".strip()
        if name == before:
            break
    if options.version:
        name = "version"
    elif options.help or name in {"", "help"}:
        return None
    if name not in BY_NAME:
        raise UsageError(_unknown(name))
    return BY_NAME[name]


def _forget_the_host(options: argparse.Namespace) -> None:
    """Leave out what the environment says of a host: a lab brings its own. A flag that says so stays, to be refused."""
    for name in ("config", "state", "netns"):
        if getattr(options, name) == os.environ.get(f"SVCNAT_{name.upper()}"):
            setattr(options, name, None)


def _require_text(options: argparse.Namespace) -> None:
    for flag, value in vars(options).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and flag not in _BYTES:
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise UsageError(f"'{text}' is not UTF-8 text") from error


def _given(text: str) -> str:
    """A flag's value that may not be empty: of ``--lab "$LAB"``, with no LAB, the host would be the lab."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _global_flags() -> argparse.ArgumentParser:
    """The flags that every verb takes; one that is not given leaves what stood before the verb, or main's default."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    flags = parser.add_argument_group("global flags")
    flags.add_argument("--config", type=_given, metavar="FILE", help="configuration (default /etc/svcnat/config.yaml)")
    flags.add_argument("--state", type=_given, metavar="FILE", help="state file (default /var/lib/svcnat/state.db)")
    flags.add_argument("--netns", type=_given, metavar="NAME", help="network namespace to program (default: this one)")
    flags.add_argument("--lab", type=_given, metavar="NAME", help="work on this lab's state and nodes")
    flags.add_argument("-n", "--namespace", metavar="NAME", help="Kubernetes namespace (default: default)")
    flags.add_argument("-v", "--verbose", action="store_true", help="say more, also about errors")
    return parser


def _help() -> str:
    flags = "[--config FILE] [--state FILE] [--netns NAME] [--lab NAME] [-n NAMESPACE] [-v]"
    return (
        "Kubernetes Services for plain Linux: manifests in, nftables DNAT rules out.\n\n"
        f"usage: svcnat VERB ... {flags}\n\n{overview()}\n\n'svcnat VERB --help' tells more about a verb."
    )


def _unknown(name: str) -> str:
    import difflib  # only a mistake pays for it

    if name in PREFIXES:
        words = [known.removeprefix(name).split()[0] for known in BY_NAME if known.startswith(f"{name} ")]
        return f"'svcnat {name}' needs one of: {', '.join(dict.fromkeys(words))}"
    before, _, word = name.rpartition(" ")
    words = [known.removeprefix(before).split()[0] for known in BY_NAME if known.startswith(before and f"{before} ")]
    near = difflib.get_close_matches(word, words, n=1)
    hint = f", did you mean '{f'{before} {near[0]}'.strip()}'?" if near else ""
    if before and not near:
        hint = f": 'svcnat {before}' has {', '.join(dict.fromkeys(words))}"
    return f"unknown verb '{name}'{hint}\nSee 'svcnat --help'."
