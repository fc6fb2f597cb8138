"""Commands: their base class, and how a store loads, decides, commits and retries them."""

from eventcore.commands.command import Command, CommandResult, Decision
from eventcore.commands.executor import CommandExecutor
from eventcore.commands.retry import RetryPolicy

__all__ = ["Command", "CommandExecutor", "CommandResult", "Decision", "RetryPolicy"]
