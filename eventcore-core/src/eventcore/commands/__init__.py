"""Commands: their base class, and how a store loads, decides, commits and retries them."""

from eventcore.commands.command import Command, CommandResult, Decision
from eventcore.commands.executor import CommandExecutor
from eventcore.commands.retry import RetryPolicy
from eventcore.commands.streams.cache import DEFAULT_CACHE_BYTES

__all__ = ["DEFAULT_CACHE_BYTES", "Command", "CommandExecutor", "CommandResult", "Decision", "RetryPolicy"]
