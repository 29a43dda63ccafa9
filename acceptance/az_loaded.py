"""Runs commands of the Azure CLI, each in a process of its own that has the modules loaded already.

Started with the CLI's own interpreter. A line of standard input is a request, {"id": …, "arguments": […]}; a line of standard output is
what came of it, {"id": …, "code": …, "out": …, "err": …}, in the order in which they end. Without arguments, the names of all commands
below `az aks` are asked for. It ends with its input.
"""

import fcntl
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback

from azure.cli.core import get_default_cli

# Longer than anything that works.
SECONDS = 900

# What the commands would load each time that they run.
MODULES = (
    "azure.cli.command_modules.acs.custom",
    "azure.mgmt.authorization",
    "azure.mgmt.compute",
    "azure.mgmt.containerservice",
    "azure.mgmt.monitor",
    "azure.mgmt.msi",
    "azure.mgmt.network",
    "azure.mgmt.resource",
)


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
            except BaseException:
                traceback.print_exc()
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


def answer(request, answers, lock):
    """What a request comes to, written to the file `answers`; nobody else writes there meanwhile."""
    try:
        arguments = request["arguments"]
        came = run(arguments) if arguments else {"names": names()}
    except BaseException:
        came = {"code": 1, "out": "", "err": traceback.format_exc()}
    line = (json.dumps({"id": request["id"], **came}) + "\n").encode()
    fcntl.lockf(lock, fcntl.LOCK_EX)
    while line:
        line = line[os.write(answers, line) :]


def main():
    # kubectl, which some commands start, wants a terminal: without one it would stop this process, and be waited for without end.
    for stop in (signal.SIGTTOU, signal.SIGTTIN, signal.SIGTSTP):
        signal.signal(stop, signal.SIG_IGN)
    # Whatever it says; the modules stay.
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    invoke(["aks", "--help"])
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ImportError:
            # Another release has it elsewhere: then each command that needs it loads it.
            pass
    # Nobody waits for those who answer.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with tempfile.TemporaryFile() as lock:
        for line in sys.stdin:
            request = json.loads(line)
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(request, answers, lock)
                os._exit(0)


main()
