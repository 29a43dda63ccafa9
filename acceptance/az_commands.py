"""Runs commands of the Azure CLI one after the other, each in a process of its own that has all modules loaded already.

Started with the CLI's own interpreter. A line of standard input is a JSON list of arguments; a line of standard output is what came of it.
The empty list asks for the names of all commands below `az aks`.
"""

import json
import os
import signal
import sys
import tempfile

from azure.cli.core import get_default_cli

# Longer than anything that works.
SECONDS = 900


def names():
    from azure.cli.core.file_util import create_invoker_and_load_cmds_and_args

    cli = get_default_cli()
    create_invoker_and_load_cmds_and_args(cli)
    table = cli.invocation.commands_loader.command_table
    return sorted(name for name in table if name.startswith("aks "))


def invoke(arguments):
    try:
        return get_default_cli().invoke(arguments) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def run(arguments):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            signal.alarm(SECONDS)
            code = 1
            try:
                code = invoke(arguments)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read().decode("utf-8", "replace"),
            "err": err.read().decode("utf-8", "replace"),
        }


def main():
    # Whatever it says; the modules stay.
    saved = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    invoke(["aks", "--help"])
    os.dup2(saved, 1)
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(run(arguments) if arguments else names()), flush=True)


main()
