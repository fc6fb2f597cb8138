"""Commands: their base class, how they are executed, and what is recorded of it."""

from eventcore.commands.command import Command, Decision
from eventcore.commands.executor import CommandExecutor, CommandResult
from eventcore.commands.retry import RetryPolicy

__all__ = ["Command", "CommandExecutor", "CommandResult", "Decision", "RetryPolicy"]
