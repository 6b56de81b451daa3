"""`wherry completion`: the script that makes a shell complete our commands."""

from __future__ import annotations

from wherry.cli.grammar import argument, command
from wherry.errors import UsageError


def _shell(text: str) -> str:
    if text not in ("bash", "zsh", "fish", "powershell"):
        raise UsageError(
            f"no completion for the shell {text!r}: bash, zsh, fish and powershell have one"
        )
    return text


@command(
    argument("shell", metavar="SHELL", convert=_shell),
    usage="bash|zsh|fish|powershell",
    examples="""\
  $ wherry completion bash > ~/.local/share/bash-completion/completions/wherry
  $ wherry completion zsh > ~/.zfunc/_wherry
  $ wherry completion fish > ~/.config/fish/completions/wherry.fish
  > wherry completion powershell >> $PROFILE
""",
)
def completion(shell: str) -> int:
    """Print the script that completes wherry's commands in a shell"""
    from wherry.cli.clickify import completion_script

    print(completion_script(shell))
    return 0
